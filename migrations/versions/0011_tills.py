"""Tills: what one took without network in a day is counted; nothing asks who shares a sign-in."""

from alembic import op

revision = "0011_tills"
down_revision = "0010_detach"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE INDEX voucher_moves_offline ON voucher_moves (till, at)"
        " WHERE offline AND state = 'succeeded'"
    )
    op.execute("DROP INDEX charges_by_device")
    op.execute("UPDATE settings SET value = value - 'day_residents' WHERE name = 'fraud.device'")
