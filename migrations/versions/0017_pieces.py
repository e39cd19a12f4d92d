"""Pieces: the runs of a part of the log; who goes through it goes through tables in order."""

from alembic import op

revision = "0017_pieces"
down_revision = "0016_runs"
branch_labels = None
depends_on = None

# The runs of the leaves from `since` to below `below`, the first and the last cut to these. Like
# `leaves_between` it does not become a part of the statement that asks, so that it is taken for a
# few rows whatever the statistics.
_RUNS_BETWEEN = """
CREATE FUNCTION runs_between(since bigint, below bigint)
RETURNS TABLE (leaf bigint, arrival bigint, count bigint)
LANGUAGE sql STABLE ROWS 20 SET enable_seqscan = off AS $$
  SELECT greatest(r.leaf, since), r.arrival + greatest(since - r.leaf, 0),
    least(below, r.leaf + r.count) - greatest(r.leaf, since)
  FROM runs r
  WHERE r.leaf < below AND r.leaf + r.count > since
    AND r.leaf >= coalesce((SELECT max(runs.leaf) FROM runs WHERE runs.leaf <= since), 0)
$$;
"""


def upgrade() -> None:
    op.execute(_RUNS_BETWEEN)
