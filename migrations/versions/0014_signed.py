"""Signed: a plain charge takes the nonce of its request itself; few entries go row by row."""

from alembic import op

revision = "0014_signed"
down_revision = "0013_debtors"
branch_labels = None
depends_on = None

# As in 0012, with the nonce, if it is still to be taken: `signer` is the id of the key.
_PAY = """
DROP FUNCTION pay_charge(
  charges, bytea, integer[], bigint[], integer,
  bytea[], smallint[], smallint[], integer[], bigint[], bytea[], text[], bytea[], bytea[],
  integer[], bigint[], bytea[], integer[], smallint[], smallint[]
);
CREATE FUNCTION pay_charge(
  one charges, shown bytea, signer text, fresh text,
  wallet_buckets integer[], wallet_amounts bigint[], day integer,
  accounts bytea[], kinds smallint[], assets smallint[], buckets integer[], amounts bigint[],
  entry_ids bytea[], entry_kinds text[], payloads bytea[], leaf_hashes bytea[],
  line_entries integer[], line_amounts bigint[], line_accounts bytea[], line_buckets integer[],
  line_kinds smallint[], line_assets smallint[]
) RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
  arrivals bigint[];
  is_same boolean;
BEGIN
  is_same := is_still(one.resident, wallet_buckets, wallet_amounts);
  IF is_same THEN
    UPDATE pay_codes c SET used_at = one.at WHERE c.code = shown AND c.used_at IS NULL;
    is_same := FOUND;
  END IF;
  IF NOT is_same THEN
    RAISE EXCEPTION 'what this charge goes by has changed meanwhile'
      USING ERRCODE = 'serialization_failure';
  END IF;
  IF signer IS NOT NULL THEN
    INSERT INTO nonces (key_id, nonce, seen_at) VALUES (signer, fresh, one.at);
  END IF;
  INSERT INTO charges SELECT one.*;
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

# As in 0012, row by row: to begin a query over arrays costs more than the few rows that come here.
_APPEND = """
CREATE OR REPLACE FUNCTION append_entries(
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
  FOR n IN 1 .. cardinality(entry_ids) LOOP
    drawn[n] := nextval('arrivals');
    INSERT INTO entries (arrival, id, kind, payload)
    VALUES (drawn[n], entry_ids[n], entry_kinds[n], payloads[n]);
    INSERT INTO outbox (arrival, leaf_hash) VALUES (drawn[n], leaf_hashes[n]);
  END LOOP;
  FOR n IN 1 .. cardinality(line_entries) LOOP
    INSERT INTO postings (arrival, amount, account, bucket, account_kind, asset)
    VALUES (drawn[line_entries[n]], line_amounts[n], line_accounts[n], line_buckets[n],
      line_kinds[n], line_assets[n]);
  END LOOP;
  RETURN drawn;
END $$;
"""


def upgrade() -> None:
    op.execute(_PAY)
    op.execute(_APPEND)
