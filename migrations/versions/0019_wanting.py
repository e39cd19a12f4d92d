"""Wanting: who has joined a challenge is reckoned anew only once it can have been reached.

A member's row says how much was wanting when last reckoned, less what came since; null where that
was never done. `places` says up to which leaf of the log a follower has come, so that it goes on
there after a stop.
"""

from alembic import op

revision = "0019_wanting"
down_revision = "0018_refused"
branch_labels = None
depends_on = None

_STATEMENTS = (
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
