"""Lean: what a charge and an order write, each as one statement that leaves out what costs most."""

from alembic import op

revision = "0012_lean"
down_revision = "0011_tills"
branch_labels = None
depends_on = None

# As in 0007, but for the numbers: a query over generate_series was planned anew each time, for its
# rows are as many as its argument says; an expression is not planned at all.
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
  END LOOP;
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

# What was read unlocked is held against what is so once the resident is locked: their points of
# each bucket (1 is a resident's own account and 2 are points). If not, it is to be looked at anew.
_IS_STILL = """
CREATE FUNCTION is_still(who bytea, wallet_buckets integer[], wallet_amounts bigint[])
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  is_same boolean;
BEGIN
  PERFORM FROM residents r WHERE r.id = who AND r.erased_at IS NULL FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  SELECT array_agg(b.bucket ORDER BY b.bucket) = wallet_buckets
    AND array_agg(b.amount ORDER BY b.bucket) = wallet_amounts INTO is_same
  FROM balances b
  WHERE b.account = who AND b.account_kind = 1 AND b.asset = 2 AND b.amount > 0;
  RETURN is_same IS TRUE;
END $$;
"""

# As in 0008, but that a number which is taken says so itself (unique_violation), without being
# looked for first. The merchant's allowance is the last balance that `append_entries` changes, so
# that its row is locked for no longer than the rest of this statement and its commit. Each row here
# is found by its key: a plan that a session made while a table was empty would go through all of
# it, for as long as nobody analyzes it.
_PAY = """
CREATE OR REPLACE FUNCTION pay_charge(
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
  is_same := is_still(one.resident, wallet_buckets, wallet_amounts);
  IF is_same THEN
    UPDATE pay_codes c SET used_at = one.at WHERE c.code = shown AND c.used_at IS NULL;
    is_same := FOUND;
  END IF;
  IF NOT is_same THEN
    RAISE EXCEPTION 'what this charge goes by has changed meanwhile'
      USING ERRCODE = 'serialization_failure';
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

# The rows that all buyers of one reward meet at: what was missing, if anything. Where nothing
# bounds the day nothing is counted of it.
_TAKE = """
CREATE FUNCTION take_pieces(which bytea, n integer, per_day integer, today integer)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  UPDATE reward_stock s SET remaining = s.remaining - n, sold = s.sold + n
  WHERE s.reward = which AND (s.remaining IS NULL OR s.remaining >= n);
  IF NOT FOUND THEN
    RETURN 'stock';
  END IF;
  IF n > per_day THEN
    RETURN 'day';
  END IF;
  IF per_day IS NOT NULL THEN
    INSERT INTO reward_days AS d (reward, day, sold) VALUES (which, today, n)
    ON CONFLICT (reward, day) DO UPDATE SET sold = d.sold + n WHERE d.sold + n <= per_day;
    IF NOT FOUND THEN
      RETURN 'day';
    END IF;
  END IF;
  RETURN '';
END $$;
"""

# A plain order in one go, with the answer that is kept under its request's key. `had` are the
# pieces that its resident had of the reward, where that is bounded. The pieces come last: their row
# is locked for no longer than the commit.
_PLACE = """
CREATE FUNCTION place_order(
  one orders, had bigint, per_day integer, wallet_buckets integer[], wallet_amounts bigint[],
  kept answers,
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
  IF is_same AND had IS NOT NULL THEN
    SELECT coalesce(sum(o.quantity), 0) = had INTO is_same FROM orders o
    WHERE o.resident = one.resident AND o.reward = one.reward AND o.state <> 'released';
  END IF;
  IF is_same THEN
    INSERT INTO answers SELECT kept.*;
    INSERT INTO orders SELECT one.*;
    arrivals := append_entries(
      accounts, kinds, assets, buckets, amounts, entry_ids, entry_kinds, payloads, leaf_hashes,
      line_entries, line_amounts, line_accounts, line_buckets, line_kinds, line_assets
    );
    is_same := take_pieces(one.reward, one.quantity, per_day, one.placed_on) = '';
  END IF;
  IF NOT is_same THEN
    RAISE EXCEPTION 'what this order goes by has changed meanwhile'
      USING ERRCODE = 'serialization_failure';
  END IF;
  RETURN arrivals[1];
END $$;
"""

# As in 0006; the lock is taken by an expression, which costs no query of its own.
_INTO_AN_OPEN_DAY = """
CREATE OR REPLACE FUNCTION into_an_open_day() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE last integer;
BEGIN
  IF pg_advisory_xact_lock_shared(hashtextextended('bills', 0)) IS NOT NULL THEN
    SELECT closed INTO last FROM bill_head;
  END IF;
  IF NEW.day <= last THEN
    NEW.day := to_char(to_date(last::text, 'YYYYMMDD') + 1, 'YYYYMMDD')::integer;
  END IF;
  RETURN NEW;
END $$;
"""


def upgrade() -> None:
    for part in (_APPEND, _IS_STILL, _PAY, _TAKE, _PLACE, _INTO_AN_OPEN_DAY):
        op.execute(part)
