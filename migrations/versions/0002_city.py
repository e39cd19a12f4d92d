"""Who takes part: providers, residents, what binds them, what they sent, and who pays."""

from alembic import op

revision = "0002_city"
down_revision = "0001_ledger"
branch_labels = None
depends_on = None

_PROVIDERS = """
CREATE TABLE providers (
  code text PRIMARY KEY CHECK (code ~ '^[a-z0-9][a-z0-9-]{1,30}$'),
  name text NOT NULL,
  created_at timestamptz NOT NULL
);

CREATE TABLE provider_keys (
  key_id text PRIMARY KEY,
  provider text NOT NULL REFERENCES providers,
  algorithm text NOT NULL CHECK (algorithm IN ('ed25519', 'rsa-sha256')),
  public_key bytea NOT NULL,
  created_at timestamptz NOT NULL,
  revoked_at timestamptz
);

CREATE TABLE nonces (
  key_id text NOT NULL,
  nonce text NOT NULL,
  seen_at timestamptz NOT NULL,
  PRIMARY KEY (key_id, nonce)
);
CREATE INDEX nonces_by_age ON nonces (seen_at);

CREATE TABLE batches (
  provider text NOT NULL,
  batch_id text NOT NULL,
  body_digest bytea NOT NULL,
  received_at timestamptz NOT NULL,
  receipt bytea NOT NULL,
  PRIMARY KEY (provider, batch_id)
);
-- The receipt is compressed before it is stored.
ALTER TABLE batches ALTER receipt SET STORAGE EXTERNAL;
"""

_PEOPLE = """
CREATE TABLE residents (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  wrapped_key bytea,
  district text,
  joined_at timestamptz NOT NULL,
  erased_at timestamptz
) WITH (fillfactor = 80);

CREATE TABLE bindings (
  subject bytea PRIMARY KEY CHECK (octet_length(subject) = 32),
  resident bytea NOT NULL REFERENCES residents,
  provider text NOT NULL REFERENCES providers,
  bound_at timestamptz NOT NULL
);
CREATE INDEX bindings_by_resident ON bindings (resident);

CREATE TABLE consents (
  resident bytea NOT NULL REFERENCES residents,
  provider text NOT NULL REFERENCES providers,
  given_at timestamptz NOT NULL,
  withdrawn_at timestamptz,
  PRIMARY KEY (resident, provider)
);

CREATE TABLE openings (
  arrival bigint PRIMARY KEY,
  resident bytea NOT NULL,
  sealed bytea NOT NULL
);

CREATE TABLE usage (
  resident bytea NOT NULL,
  scenario text NOT NULL,
  period integer NOT NULL,
  count integer NOT NULL CHECK (count >= 0),
  reduction_mg bigint NOT NULL CHECK (reduction_mg >= 0),
  points bigint NOT NULL CHECK (points >= 0),
  PRIMARY KEY (resident, period, scenario)
) WITH (fillfactor = 80);

CREATE TABLE rejections (
  resident bytea NOT NULL,
  provider text NOT NULL,
  batch_id text NOT NULL,
  position integer NOT NULL,
  activity_id text NOT NULL,
  code text NOT NULL,
  detail text NOT NULL,
  recorded_at timestamptz NOT NULL,
  PRIMARY KEY (resident, recorded_at, provider, batch_id, position)
);

CREATE TABLE unclaimed (
  provider text NOT NULL,
  activity_id text NOT NULL,
  subject bytea NOT NULL,
  sealed bytea NOT NULL,
  received_at timestamptz NOT NULL,
  PRIMARY KEY (provider, activity_id)
);
CREATE INDEX unclaimed_by_subject ON unclaimed (subject);
"""

_MONEY = """
CREATE TABLE budgets (
  token bytea PRIMARY KEY CHECK (octet_length(token) = 16),
  name text NOT NULL,
  scope text NOT NULL UNIQUE,
  created_at timestamptz NOT NULL
);

CREATE TABLE waiting (
  arrival bigint PRIMARY KEY,
  entry_id bytea NOT NULL,
  resident bytea NOT NULL,
  budget bytea NOT NULL REFERENCES budgets,
  points bigint NOT NULL CHECK (points > 0)
);
CREATE INDEX waiting_in_order ON waiting (budget, arrival);
CREATE INDEX waiting_by_resident ON waiting (resident);

CREATE TABLE scenario_versions (
  scenario text NOT NULL,
  number integer NOT NULL,
  digest text NOT NULL,
  effective_from date NOT NULL,
  canonical bytea NOT NULL,
  published_at timestamptz NOT NULL,
  PRIMARY KEY (scenario, number)
);
"""

_GRANTS = """
GRANT SELECT, INSERT ON providers, batches, scenario_versions, budgets TO puhui_app;
GRANT SELECT, INSERT, UPDATE ON provider_keys, residents TO puhui_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON consents, usage TO puhui_app;
GRANT SELECT, INSERT, DELETE ON nonces, bindings, openings, rejections TO puhui_app;
GRANT SELECT, INSERT, DELETE ON unclaimed, waiting TO puhui_app;
GRANT SELECT ON alembic_version TO puhui_app;
"""


def upgrade() -> None:
    op.execute(_PROVIDERS)
    op.execute(_PEOPLE)
    op.execute(_MONEY)
    for table in ("batches", "scenario_versions"):
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    op.execute(_GRANTS)
