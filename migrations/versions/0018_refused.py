"""Refused: a resident reads which behaviour was refused, not its number with the provider alone."""

from alembic import op

revision = "0018_refused"
down_revision = "0017_newest"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Null where there is none of the name that was sent; and of what was refused before this.
    op.execute("ALTER TABLE rejections ADD COLUMN scenario text")
