"""Debtors: who owes anything is found among those who ever did, not among everybody's balances."""

from alembic import op

revision = "0013_debtors"
down_revision = "0012_lean"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # 3 is AccountKind.DEBT. The amount stays out: an index that names it, even as its condition,
    # would cost every change of a balance an entry in each index.
    op.execute("CREATE INDEX balances_of_debtors ON balances (account) WHERE account_kind = 3")
