"""Charge: what a plain charge writes, as one statement; and rows that no till has to share."""

from alembic import op

revision = "0008_charge"
down_revision = "0007_append"
branch_labels = None
depends_on = None

# Each of these had every charge or order lock the one row of its merchant, till or reward, which
# all tills of a busy shop then wrote to. None of those rows is ever deleted (the program may not),
# and their ids come from the database itself, so that there is nothing to be found by looking.
_SHARED = (
    ("charges", ("merchant", "store", "till")),
    ("orders", ("merchant", "reward")),
    ("vouchers", ("merchant", "reward")),
)

# What was read before, unlocked, is held here against what is so now that the resident is locked:
# their points of each bucket, the code and the number. Whoever came first changed one of them, and
# the charge is then to be looked at anew: serialization_failure. The merchant's allowance is the
# last balance that `append_entries` changes, so that its row is locked for no longer than the rest
# of this statement and its commit. Each row here is found by its key: a plan that a session made
# while a table was empty would go through all of it, for as long as nobody analyzes it.
_PAY = """
CREATE FUNCTION pay_charge(
  one charges, shown bytea, wallet_buckets integer[], wallet_amounts bigint[], day integer,
  accounts bytea[], kinds smallint[], assets smallint[], buckets integer[], amounts bigint[],
  entry_ids bytea[], entry_kinds text[], payloads bytea[], leaf_hashes bytea[],
  line_entries integer[], line_amounts bigint[], line_accounts bytea[], line_buckets integer[],
  line_kinds smallint[], line_assets smallint[]
) RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
  arrivals bigint[];
  is_same boolean;
BEGIN
  PERFORM FROM residents r WHERE r.id = one.resident AND r.erased_at IS NULL FOR NO KEY UPDATE;
  is_same := FOUND;
  IF is_same THEN  -- 1 is a resident's own account and 2 are points
    SELECT array_agg(b.bucket ORDER BY b.bucket) = wallet_buckets
      AND array_agg(b.amount ORDER BY b.bucket) = wallet_amounts INTO is_same
    FROM balances b
    WHERE b.account = one.resident AND b.account_kind = 1 AND b.asset = 2 AND b.amount > 0;
  END IF;
  IF is_same THEN
    UPDATE pay_codes c SET used_at = one.at WHERE c.code = shown AND c.used_at IS NULL;
    is_same := FOUND;
  END IF;
  IF is_same THEN
    INSERT INTO charges SELECT one.* ON CONFLICT (merchant, number) DO NOTHING;
    is_same := FOUND;
  END IF;
  IF is_same IS NOT TRUE THEN
    RAISE EXCEPTION 'what this charge goes by has changed meanwhile'
      USING ERRCODE = 'serialization_failure';
  END IF;
  arrivals := append_entries(
    accounts, kinds, assets, buckets, amounts, entry_ids, entry_kinds, payloads, leaf_hashes,
    line_entries, line_amounts, line_accounts, line_buckets, line_kinds, line_assets
  );
  INSERT INTO bill_lines
    (arrival, merchant, day, kind, number, origin, entry, points, store, till, at)
  VALUES (arrivals[1], one.merchant, day, 'charge', one.number, '', one.entry, one.points,
    one.store, one.till, one.at);
  RETURN arrivals[1];
END $$;
"""


def upgrade() -> None:
    for table, columns in _SHARED:
        for column in columns:
            op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_{column}_fkey")
    op.execute(_PAY)
