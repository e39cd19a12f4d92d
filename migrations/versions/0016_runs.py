"""Runs: what waits to be sealed, and what is, is a row for each run of arrivals, not for each."""

from alembic import op

revision = "0016_runs"
down_revision = "0015_stretches"
branch_labels = None
depends_on = None

# Nobody appends or seals between the reading of a table and its end.
_STOP = "LOCK TABLE outbox, leaves IN ACCESS EXCLUSIVE MODE"

# The leaves `leaf` and on are the entries `arrival` and on, `count` of them. Runs do not overlap:
# a number is drawn once, by the transaction in whose row of the outbox it comes here, and that row
# is deleted by the transaction that writes this one. `puhui check` holds them to it.
_RUNS = """
CREATE TABLE runs (
  leaf bigint PRIMARY KEY CHECK (leaf >= 0),
  arrival bigint NOT NULL UNIQUE,
  count integer NOT NULL CHECK (count > 0)
) WITH (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
  autovacuum_freeze_min_age = 0);
ALTER INDEX runs_pkey SET (fillfactor = 100);
ALTER INDEX runs_arrival_key SET (fillfactor = 100);

-- A run ends where the next one begins: leaves have no gaps.
INSERT INTO runs (leaf, arrival, count)
SELECT leaf, arrival,
  lead(leaf, 1, (SELECT size FROM log_head)) OVER (ORDER BY leaf) - leaf
FROM (SELECT leaf, arrival, lag(arrival) OVER (ORDER BY leaf) AS before FROM leaves) l
WHERE arrival IS DISTINCT FROM before + 1 ORDER BY leaf;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON runs
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT, INSERT ON runs TO puhui_app;
DROP TABLE leaves;
"""

# Of all leaves at once there is a view. `leaf_of` is one look, at the last run that begins no later
# (no row: not sealed), and becomes a part of the statement that asks. `runs_between` gives the runs
# of the leaves from `since` to below `below`, the first and the last cut to these, `leaves_between`
# those leaves. These two do not become a part of the statement that asks, so that they are always
# taken for about as many rows as are asked for at a time: each is then looked up in what it is
# joined to, whatever the statistics.
_LEAVES = """
CREATE VIEW leaves (leaf, arrival) AS
  SELECT r.leaf + n, r.arrival + n FROM runs r CROSS JOIN generate_series(0, r.count - 1) n;
GRANT SELECT ON leaves TO puhui_app;

CREATE FUNCTION leaf_of(one bigint) RETURNS TABLE (leaf bigint) LANGUAGE sql STABLE AS $$
  SELECT r.leaf + one - r.arrival
  FROM (SELECT * FROM runs WHERE runs.arrival <= one ORDER BY runs.arrival DESC LIMIT 1) r
  WHERE one < r.arrival + r.count
$$;

CREATE FUNCTION runs_between(since bigint, below bigint)
RETURNS TABLE (leaf bigint, arrival bigint, count bigint)
LANGUAGE sql STABLE ROWS 20 SET enable_seqscan = off AS $$
  SELECT greatest(r.leaf, since), r.arrival + greatest(since - r.leaf, 0),
    least(below, r.leaf + r.count) - greatest(r.leaf, since)
  FROM runs r
  WHERE r.leaf < below AND r.leaf + r.count > since
    AND r.leaf >= coalesce((SELECT max(runs.leaf) FROM runs WHERE runs.leaf <= since), 0)
$$;

CREATE FUNCTION leaves_between(since bigint, below bigint)
RETURNS TABLE (leaf bigint, arrival bigint)
LANGUAGE sql STABLE ROWS 1000 SET enable_seqscan = off AS $$
  SELECT r.leaf + n, r.arrival + n
  FROM runs_between(since, below) r CROSS JOIN generate_series(0, r.count - 1) n
$$;

CREATE OR REPLACE FUNCTION refuse_but_detach() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  bare entries;
BEGIN
  bare := OLD;
  bare.payload := NULL;
  IF NEW IS DISTINCT FROM bare OR NOT EXISTS (
    SELECT FROM leaf_of(OLD.arrival) l WHERE l.leaf < (SELECT size FROM detached))
  THEN
    RAISE EXCEPTION 'table entries is append-only: UPDATE refused'
      USING ERRCODE = 'restrict_violation', HINT = 'append a correcting entry instead';
  END IF;
  RETURN NEW;
END $$;
"""

# The leaf hashes of the entries `arrival` and on. Not compressed, for hashes cannot be: that their
# length is right is seen without reading them. A batch's lie outside, in rows of 2,000 bytes.
_OUTBOX = """
ALTER TABLE outbox RENAME TO was_outbox;
ALTER INDEX outbox_pkey RENAME TO was_outbox_pkey;
CREATE TABLE outbox (
  arrival bigint PRIMARY KEY,
  count integer NOT NULL CHECK (count > 0),
  leaf_hashes bytea STORAGE EXTERNAL NOT NULL,
  CHECK (octet_length(leaf_hashes) = 32 * count)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
  toast.autovacuum_vacuum_threshold = 5000);
GRANT SELECT, INSERT, DELETE ON outbox TO puhui_app;

-- A row is sealed whole: none of those made here is longer than a batch.
INSERT INTO outbox (arrival, count, leaf_hashes)
SELECT min(arrival), count(*), string_agg(leaf_hash, '' ORDER BY arrival)
FROM (SELECT arrival, leaf_hash, arrival - row_number() OVER (ORDER BY arrival) AS run
  FROM was_outbox) o
GROUP BY run, arrival / 5000 ORDER BY 1;
DROP TABLE was_outbox;
"""

# As in 0014, but for the outbox. What two transactions draw at once may lie in turns: there a run
# ends.
_APPEND = """
CREATE OR REPLACE FUNCTION append_entries(
  accounts bytea[], kinds smallint[], assets smallint[], buckets integer[], amounts bigint[],
  entry_ids bytea[], entry_kinds text[], payloads bytea[], leaf_hashes bytea[],
  line_entries integer[], line_amounts bigint[], line_accounts bytea[], line_buckets integer[],
  line_kinds smallint[], line_assets smallint[]
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
  drawn bigint[];
  run bytea := '';
  length integer;
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
  FOR n IN 1 .. cardinality(entry_ids) LOOP
    INSERT INTO entries (arrival, id, kind, payload)
    VALUES (drawn[n], entry_ids[n], entry_kinds[n], payloads[n]);
    run := run || leaf_hashes[n];
    IF drawn[n + 1] IS DISTINCT FROM drawn[n] + 1 THEN
      length := octet_length(run) / 32;
      INSERT INTO outbox (arrival, count, leaf_hashes)
      VALUES (drawn[n] - length + 1, length, run);
      run := '';
    END IF;
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
    for part in (_STOP, _RUNS, _LEAVES, _OUTBOX, _APPEND):
        op.execute(part)
