"""Age: tables that only grow are packed full, and vacuumed stretch by stretch, not as a whole."""

from alembic import op

revision = "0009_age"
down_revision = "0008_charge"
branch_labels = None
depends_on = None

# Their keys grow with time, so that a page once filled is never inserted into again but by
# transactions side by side; room left in it would stay empty for ever. Pages to come, only.
_GROWING = (
    "entries_pkey",
    "postings_to_fold",
    "leaves_pkey",
    "leaves_arrival_key",
    "openings_pkey",
    "bill_lines_pkey",
)

# By default vacuum waits until a fifth of a table is new: a stretch that grows with the city's age,
# and is then read at once. So it comes after as many rows whatever came before, and freezes them:
# they never change, and nothing has to read them again to keep transaction numbers from wrapping.
_GROWN = ("entries", "postings", "leaves", "openings")
_STRETCH = 1_000_000


def upgrade() -> None:
    for index in _GROWING:
        op.execute(f"ALTER INDEX {index} SET (fillfactor = 100)")
    for table in _GROWN:
        op.execute(
            f"ALTER TABLE {table} SET (autovacuum_vacuum_insert_scale_factor = 0,"
            f" autovacuum_vacuum_insert_threshold = {_STRETCH}, autovacuum_freeze_min_age = 0)"
        )
