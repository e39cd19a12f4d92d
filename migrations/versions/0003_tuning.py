"""Who tunes the scenarios and how it is kept: administrators, drafts, backtests, their trail."""

from alembic import op

revision = "0003_tuning"
down_revision = "0002_city"
branch_labels = None
depends_on = None

_ADMINS = """
CREATE TABLE admins (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  name text NOT NULL UNIQUE CHECK (name ~ '^[a-z][a-z0-9._-]{2,31}$'),
  password_hash text NOT NULL,
  totp bytea NOT NULL,
  totp_step bigint NOT NULL DEFAULT 0,
  roles text[] NOT NULL CHECK (
    cardinality(roles) > 0 AND roles <@ ARRAY['editor', 'reviewer', 'operator', 'auditor']
  ),
  failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
  locked_until timestamptz,
  created_at timestamptz NOT NULL,
  disabled_at timestamptz
);

CREATE TABLE admin_sessions (
  token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
  admin bytea NOT NULL REFERENCES admins,
  began_at timestamptz NOT NULL,
  used_at timestamptz NOT NULL,
  ended_at timestamptz
);
CREATE INDEX admin_sessions_by_admin ON admin_sessions (admin);

-- What administrators did. The entry of the same arrival commits to salt and record.
CREATE TABLE trail (
  arrival bigint PRIMARY KEY,
  at timestamptz NOT NULL,
  actor text NOT NULL,
  action text NOT NULL,
  target text NOT NULL,
  record bytea NOT NULL,
  salt bytea NOT NULL CHECK (octet_length(salt) = 32)
);

-- The answer to a request that changed something, for whoever sends it again.
CREATE TABLE answers (
  scope text NOT NULL,
  key text NOT NULL,
  body_digest bytea NOT NULL,
  status smallint NOT NULL,
  body bytea NOT NULL,
  answered_at timestamptz NOT NULL,
  PRIMARY KEY (scope, key)
);
CREATE INDEX answers_by_age ON answers (answered_at);
"""

_DRAFTS = """
CREATE TABLE drafts (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  revision integer NOT NULL CHECK (revision > 0),
  state text NOT NULL CHECK (
    state IN ('draft', 'submitted', 'approved', 'rejected', 'withdrawn', 'discarded')
  ),
  title text NOT NULL,
  reason text NOT NULL,
  body bytea NOT NULL,
  author bytea NOT NULL REFERENCES admins,
  created_at timestamptz NOT NULL,
  changed_at timestamptz NOT NULL,
  submitted_at timestamptz,
  reviewer bytea REFERENCES admins,
  decided_at timestamptz,
  decision text
);
CREATE INDEX drafts_by_change ON drafts (changed_at, id);

-- A draft of NULL is the rules in force against themselves.
CREATE TABLE backtests (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  draft bytea REFERENCES drafts,
  revision integer,
  days integer NOT NULL CHECK (days > 0),
  state text NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed')),
  done bigint NOT NULL DEFAULT 0,
  total bigint NOT NULL DEFAULT 0,
  result bytea,
  problem text,
  requested_by bytea REFERENCES admins,
  requested_at timestamptz NOT NULL,
  beat_at timestamptz,
  finished_at timestamptz
);
CREATE INDEX backtests_by_draft ON backtests (draft, requested_at);
CREATE INDEX backtests_to_run ON backtests (requested_at) WHERE state IN ('queued', 'running');

ALTER TABLE scenario_versions ADD draft bytea REFERENCES drafts;

CREATE TABLE scenario_withdrawals (
  scenario text NOT NULL,
  number integer NOT NULL,
  withdrawn_at timestamptz NOT NULL,
  PRIMARY KEY (scenario, number),
  FOREIGN KEY (scenario, number) REFERENCES scenario_versions
);
"""

# fingerprint: 4 bytes of the day, so that old ones lie together, and 12 of a keyed hash.
_ACTS = """
CREATE TABLE acts (
  fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 16),
  arrival bigint NOT NULL,
  provider text NOT NULL,
  place bytea CHECK (octet_length(place) = 8),
  PRIMARY KEY (fingerprint, arrival)
);

CREATE TABLE shadow_refusals (
  recorded_at timestamptz NOT NULL,
  provider text NOT NULL,
  scenario text NOT NULL,
  number integer NOT NULL,
  rule text NOT NULL,
  acts integer NOT NULL CHECK (acts > 0),
  reduction_mg bigint NOT NULL
);
CREATE INDEX shadow_refusals_by_time ON shadow_refusals (recorded_at);
"""

_GRANTS = """
GRANT SELECT, INSERT ON trail, scenario_withdrawals TO puhui_app;
GRANT SELECT, INSERT, UPDATE ON admins, drafts, backtests TO puhui_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON admin_sessions TO puhui_app;
GRANT SELECT, INSERT, DELETE ON answers, acts, shadow_refusals TO puhui_app;
"""


def upgrade() -> None:
    op.execute(_ADMINS)
    op.execute(_DRAFTS)
    op.execute(_ACTS)
    for table in ("trail", "scenario_withdrawals"):
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    op.execute(_GRANTS)
