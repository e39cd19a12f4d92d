"""Consent for a scenario and a source, beside the binding where intake reads it."""

from alembic import op

revision = "0005_consents"
down_revision = "0004_residents"
branch_labels = None
depends_on = None

# Few different sets of scenarios occur, so a binding names one by number.
_CONSENTS = """
DROP TABLE consents;
CREATE TABLE consents (
  resident bytea NOT NULL REFERENCES residents,
  provider text NOT NULL REFERENCES providers,
  scenario text NOT NULL,
  text_digest text NOT NULL,
  given_at timestamptz NOT NULL,
  withdrawn_at timestamptz,
  PRIMARY KEY (resident, provider, scenario)
);

CREATE TABLE consent_sets (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  scenarios text[] NOT NULL UNIQUE
);
INSERT INTO consent_sets (scenarios) VALUES ('{}');
ALTER TABLE bindings ADD consent_set integer NOT NULL DEFAULT 1 REFERENCES consent_sets;
-- Why an act still waits although somebody is bound: its scenario has no consent yet.
ALTER TABLE unclaimed ADD scenario text;

-- A guardian's word for a child that joins with this code.
CREATE TABLE guardian_codes (
  code bytea PRIMARY KEY CHECK (octet_length(code) = 32),
  resident bytea NOT NULL REFERENCES residents,
  expires_at timestamptz NOT NULL
);
CREATE INDEX guardian_codes_by_resident ON guardian_codes (resident);
CREATE INDEX residents_by_guardian ON residents (guardian) WHERE guardian IS NOT NULL;

GRANT SELECT, INSERT, UPDATE, DELETE ON consents, guardian_codes TO puhui_app;
GRANT SELECT, INSERT ON consent_sets TO puhui_app;
GRANT UPDATE ON bindings, unclaimed TO puhui_app;
"""


def upgrade() -> None:
    op.execute(_CONSENTS)
