"""Append: the ledger's door as a function, so that a few entries are one round trip."""

from alembic import op

revision = "0007_append"
down_revision = "0006_merchants"
branch_labels = None
depends_on = None

# The balances come in the order in which their rows are to be locked, and are changed one by one
# in it. Arrivals are drawn only then: see app/store/entries.py. A guarded account that holds too
# little ends it with SQLSTATE PH0 and the two digits of the account's kind.
_APPEND = """
CREATE FUNCTION append_entries(
  accounts bytea[], kinds smallint[], assets smallint[], buckets integer[], amounts bigint[],
  entry_ids bytea[], entry_kinds text[], payloads bytea[], leaf_hashes bytea[],
  line_entries integer[], line_amounts bigint[], line_accounts bytea[], line_buckets integer[],
  line_kinds smallint[], line_assets smallint[]
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
  drawn bigint[];
BEGIN
  FOR n IN 1 .. cardinality(accounts) LOOP
    IF amounts[n] < 0 THEN
      UPDATE balances b SET amount = b.amount + amounts[n]
      WHERE b.account = accounts[n] AND b.account_kind = kinds[n] AND b.asset = assets[n]
        AND b.bucket = buckets[n] AND b.amount >= -amounts[n];
      IF NOT FOUND THEN
        RAISE EXCEPTION 'an account of kind % does not hold what this takes', kinds[n]
          USING ERRCODE = 'PH0' || lpad(kinds[n]::text, 2, '0');
      END IF;
    ELSE
      INSERT INTO balances AS b (account, account_kind, asset, bucket, amount)
      VALUES (accounts[n], kinds[n], assets[n], buckets[n], amounts[n])
      ON CONFLICT (account, account_kind, asset, bucket)
      DO UPDATE SET amount = b.amount + excluded.amount;
    END IF;
  END LOOP;
  drawn := ARRAY(SELECT nextval('arrivals') FROM generate_series(1, cardinality(entry_ids)));
  INSERT INTO entries (arrival, id, kind, payload)
  SELECT * FROM unnest(drawn, entry_ids, entry_kinds, payloads);
  INSERT INTO postings (arrival, amount, account, bucket, account_kind, asset)
  SELECT drawn[l.entry], l.amount, l.account, l.bucket, l.kind, l.asset
  FROM unnest(line_entries, line_amounts, line_accounts, line_buckets, line_kinds, line_assets)
    AS l (entry, amount, account, bucket, kind, asset);
  INSERT INTO outbox (arrival, leaf_hash) SELECT * FROM unnest(drawn, leaf_hashes);
  RETURN drawn;
END $$;
"""


def upgrade() -> None:
    op.execute(_APPEND)
