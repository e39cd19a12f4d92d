"""Wanting: who follows the log reads what is new of somebody, not all that they did."""

from alembic import op

revision = "0019_wanting"
down_revision = "0018_refused"
branch_labels = None
depends_on = None

# Person by person, whatever the statistics say: OFFSET 0. While these were of a time with hardly
# any lines, as on a city's first day, all that there were got read, and held against 200 people.
_OWN = """
CREATE OR REPLACE FUNCTION own_postings(who bytea, since bigint) RETURNS SETOF postings
LANGUAGE sql STABLE AS $$
  SELECT p.* FROM stretches(since, 9223372036854775807) s CROSS JOIN LATERAL (
    SELECT * FROM postings
    WHERE arrival >> 21 = s AND account = who AND account_kind <= 3 AND arrival >= since OFFSET 0) p
$$
"""

# A member's row says how much was wanting when last reckoned, less what came since; null where that
# was never done. `places` says up to which leaf of the log a follower has come, so that it goes on
# there after a stop.
_STATEMENTS = (
    _OWN,
    "ALTER TABLE challenge_members ADD COLUMN wanting bigint",
    """
CREATE TABLE places (
  follower text PRIMARY KEY,
  leaf bigint NOT NULL CHECK (leaf >= 0)
)""",
    "INSERT INTO places SELECT 'challenges', size FROM log_head",
    "GRANT SELECT, UPDATE ON places TO puhui_app",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
