"""Signed: a plain charge takes the nonce of its request itself, which saves a commit of its own."""

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


def upgrade() -> None:
    op.execute(_PAY)
