"""Newest: a resident's last lines, looked for stretch by stretch by a plan that is made once."""

from alembic import op

revision = "0017_newest"
down_revision = "0016_runs"
branch_labels = None
depends_on = None

# As one query this was planned anew at each request, for longer than it then ran: how many
# stretches and lines will be asked for is not known to a plan for all requests, which so seems
# dear. And it went on to the next stretch when it had enough. By index whatever the statistics
# say: a session keeps the plan that it made while the table was empty.
_NEWEST = """
CREATE FUNCTION newest(who bytea, before bigint, most bigint) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE ROWS 20
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
  stretch bigint;
  found bigint;
BEGIN
  FOR stretch IN SELECT stretches(0, before) LOOP
    RETURN QUERY SELECT DISTINCT p.arrival FROM postings p
      WHERE p.arrival >> 21 = stretch AND p.account = who AND p.account_kind <= 3
        AND p.arrival < before
      ORDER BY p.arrival DESC LIMIT most;
    GET DIAGNOSTICS found = ROW_COUNT;
    most := most - found;
    EXIT WHEN most <= 0;
  END LOOP;
END $$;
"""


def upgrade() -> None:
    op.execute(_NEWEST)
