"""The ledger and its log: written once, never changed, and the database itself says so."""

from alembic import op

revision = "0001_ledger"
down_revision = None
branch_labels = None
depends_on = None

# Append-only tables. Postings and openings carry no foreign key to entries: a per-row check would
# double the cost of an insert, there is one door (store/entries.append), and the audit compares.
_LEDGER = """
CREATE SEQUENCE arrivals AS bigint CACHE 1;

CREATE TABLE entries (
  arrival bigint PRIMARY KEY,
  id bytea NOT NULL UNIQUE CHECK (octet_length(id) = 16),
  kind text NOT NULL,
  payload bytea NOT NULL CHECK (octet_length(payload) BETWEEN 1 AND 65535)
);

CREATE TABLE postings (
  arrival bigint NOT NULL,
  amount bigint NOT NULL CHECK (amount <> 0),
  account bytea NOT NULL CHECK (octet_length(account) = 16),
  bucket integer NOT NULL,
  account_kind smallint NOT NULL,
  asset smallint NOT NULL
);
-- What the sealer folds, found by arrival: it must not cost more as the table grows.
CREATE INDEX postings_to_fold ON postings (arrival) WHERE account_kind > 10;
-- Only people's own accounts are ever looked up by account; the rest is summed by the sealer.
CREATE INDEX postings_by_person ON postings (account, arrival) WHERE account_kind <= 3;
-- What was paid into budgets; issues only take from them, so this stays small.
CREATE INDEX postings_into_budgets ON postings (account) WHERE account_kind = 5 AND amount > 0;

CREATE TABLE leaves (
  leaf bigint PRIMARY KEY CHECK (leaf >= 0),
  arrival bigint NOT NULL UNIQUE
);

CREATE TABLE tiles (
  level smallint NOT NULL CHECK (level BETWEEN 0 AND 7),
  n bigint NOT NULL CHECK (n >= 0),
  hashes bytea NOT NULL CHECK (octet_length(hashes) = 8192),
  PRIMARY KEY (level, n)
);

CREATE TABLE checkpoints (
  size bigint PRIMARY KEY,
  note text NOT NULL,
  sealed_at timestamptz NOT NULL
);
"""

# Working state: what may change. All of it can be rebuilt from the tables above.
_STATE = """
CREATE TABLE outbox (
  arrival bigint PRIMARY KEY,
  leaf_hash bytea NOT NULL CHECK (octet_length(leaf_hash) = 32)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);

CREATE TABLE log_head (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  size bigint NOT NULL,
  edge bytea[] NOT NULL,
  day integer
);
INSERT INTO log_head (size, edge) VALUES (0, '{}');

CREATE TABLE balances (
  account bytea NOT NULL,
  account_kind smallint NOT NULL CHECK (account_kind < 10),
  asset smallint NOT NULL,
  bucket integer NOT NULL,
  amount bigint NOT NULL CHECK (amount >= 0),
  PRIMARY KEY (account, account_kind, asset, bucket)
) WITH (fillfactor = 80);

CREATE TABLE open_balances (
  account bytea NOT NULL,
  account_kind smallint NOT NULL CHECK (account_kind > 10),
  asset smallint NOT NULL,
  amount numeric(30) NOT NULL,
  PRIMARY KEY (account_kind, account, asset)
);
"""

_REFUSE = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'table % is append-only: % refused', TG_TABLE_NAME, TG_OP
    USING ERRCODE = 'restrict_violation', HINT = 'append a correcting entry instead';
END $$;
"""

_APPEND_ONLY = ("entries", "postings", "leaves", "tiles", "checkpoints")


def upgrade() -> None:
    op.execute(_LEDGER)
    op.execute(_STATE)
    op.execute(_REFUSE)
    for table in _APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
        op.execute(f"GRANT SELECT, INSERT ON {table} TO puhui_app")
    op.execute("GRANT SELECT, INSERT, DELETE ON outbox TO puhui_app")
    op.execute("GRANT SELECT, UPDATE ON log_head TO puhui_app")
    op.execute("GRANT SELECT, INSERT, UPDATE ON balances, open_balances TO puhui_app")
    op.execute("GRANT USAGE ON SEQUENCE arrivals TO puhui_app")
