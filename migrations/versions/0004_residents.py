"""What residents do themselves: log in, consent, bind, report, dispute, take part, and leave."""

from alembic import op

revision = "0004_residents"
down_revision = "0003_tuning"
branch_labels = None
depends_on = None

# identity, code, phone and token are only ever stored as keyed or plain hashes of 32 bytes.
_LOGIN = """
CREATE TABLE logins (
  identity bytea PRIMARY KEY CHECK (octet_length(identity) = 32),
  resident bytea NOT NULL REFERENCES residents,
  openid bytea NOT NULL,
  session_key bytea NOT NULL,
  session_at timestamptz NOT NULL
);
CREATE INDEX logins_by_resident ON logins (resident);

CREATE TABLE login_codes (
  code bytea PRIMARY KEY CHECK (octet_length(code) = 32),
  answer bytea NOT NULL,
  used_at timestamptz NOT NULL
);
CREATE INDEX login_codes_by_age ON login_codes (used_at);

CREATE TABLE refresh_tokens (
  token bytea PRIMARY KEY CHECK (octet_length(token) = 32),
  family bytea NOT NULL CHECK (octet_length(family) = 16),
  resident bytea NOT NULL REFERENCES residents,
  issued_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  used_at timestamptz,
  successor bytea,
  revoked_at timestamptz
);
CREATE INDEX refresh_tokens_by_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_by_resident ON refresh_tokens (resident);

-- Whose access tokens, issued before this, are no longer good: a resident's, or one family's.
-- Every process reads it often.
CREATE TABLE sign_outs (
  bearer bytea PRIMARY KEY CHECK (octet_length(bearer) = 16),
  at timestamptz NOT NULL
);
CREATE INDEX sign_outs_by_age ON sign_outs (at);

CREATE TABLE phones (
  resident bytea PRIMARY KEY REFERENCES residents,
  digest bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
  sealed bytea NOT NULL,
  verified_at timestamptz NOT NULL
);
"""

_JOINING = """
ALTER TABLE residents ADD minor_until date;
ALTER TABLE residents ADD guardian bytea REFERENCES residents;
ALTER TABLE residents ADD restricted_at timestamptz;

CREATE TABLE privacy_notices (
  number integer PRIMARY KEY CHECK (number > 0),
  digest text NOT NULL,
  text_zh text NOT NULL,
  published_at timestamptz NOT NULL
);

CREATE TABLE privacy_acceptances (
  resident bytea NOT NULL REFERENCES residents,
  number integer NOT NULL REFERENCES privacy_notices,
  accepted_at timestamptz NOT NULL,
  PRIMARY KEY (resident, number)
);

CREATE TABLE binding_codes (
  code bytea PRIMARY KEY CHECK (octet_length(code) = 32),
  provider text NOT NULL REFERENCES providers,
  subject bytea NOT NULL CHECK (octet_length(subject) = 32),
  expires_at timestamptz NOT NULL,
  used_at timestamptz
);
CREATE INDEX binding_codes_by_age ON binding_codes (expires_at);

CREATE TABLE binding_disputes (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  subject bytea NOT NULL,
  provider text NOT NULL REFERENCES providers,
  claimant bytea NOT NULL REFERENCES residents,
  holder bytea NOT NULL REFERENCES residents,
  state text NOT NULL CHECK (state IN ('open', 'moved', 'kept')),
  opened_at timestamptz NOT NULL,
  closed_at timestamptz,
  closed_by text
);
CREATE INDEX binding_disputes_by_claimant ON binding_disputes (claimant);
CREATE INDEX binding_disputes_by_holder ON binding_disputes (holder);
"""

# Who reports for himself: steps a day, and acts with a picture that a reviewer looks at.
_REPORTS = """
CREATE TABLE step_days (
  resident bytea NOT NULL REFERENCES residents,
  day integer NOT NULL,
  steps integer NOT NULL CHECK (steps >= 0),
  settled integer NOT NULL CHECK (settled BETWEEN 0 AND steps),
  revision integer NOT NULL,
  held_at timestamptz,
  held_id bytea UNIQUE CHECK (octet_length(held_id) = 16),
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (resident, day),
  CHECK ((held_at IS NULL) = (held_id IS NULL))
);
CREATE INDEX step_days_held ON step_days (held_at, held_id) WHERE held_at IS NOT NULL;

CREATE TABLE reports (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  resident bytea NOT NULL REFERENCES residents,
  scenario text NOT NULL,
  sealed bytea NOT NULL,
  state text NOT NULL CHECK (state IN ('waiting', 'accepted', 'refused')),
  reported_at timestamptz NOT NULL,
  decided_at timestamptz,
  decided_by text,
  reason text
);
CREATE INDEX reports_by_resident ON reports (resident, reported_at);
CREATE INDEX reports_waiting ON reports (reported_at) WHERE state = 'waiting';

-- What was shown once is known again by keyed hashes, for ever: a picture by its bytes and by its
-- pixels, a code by itself. All else goes with its resident.
CREATE TABLE evidence (
  digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
  pixels bytea UNIQUE CHECK (octet_length(pixels) = 32),
  report bytea REFERENCES reports,
  resident bytea REFERENCES residents,
  sealed bytea
);
CREATE INDEX evidence_by_report ON evidence (report);
CREATE INDEX evidence_by_resident ON evidence (resident);
"""

_DISPUTES = """
CREATE TABLE appeals (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  resident bytea NOT NULL REFERENCES residents,
  about text NOT NULL CHECK (about IN ('entry', 'missing', 'rejection', 'correction')),
  thing bytea NOT NULL CHECK (octet_length(thing) = 16),
  sealed bytea NOT NULL,
  state text NOT NULL CHECK (
    state IN ('open', 'asked', 'granted', 'granted_in_time', 'refused', 'withdrawn')
  ),
  opened_at timestamptz NOT NULL,
  due_at timestamptz NOT NULL,
  asked_at timestamptz,
  decided_at timestamptz,
  decided_by text,
  points bigint NOT NULL DEFAULT 0 CHECK (points >= 0)
);
CREATE INDEX appeals_by_resident ON appeals (resident, opened_at, id);
CREATE INDEX appeals_by_due ON appeals (state, due_at, id);
-- One thing is disputed once at a time.
CREATE UNIQUE INDEX appeals_under_way ON appeals (resident, thing) WHERE state IN ('open', 'asked');

CREATE TABLE messages (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  resident bytea NOT NULL REFERENCES residents,
  kind text NOT NULL,
  key text NOT NULL,
  sealed bytea NOT NULL,
  created_at timestamptz NOT NULL,
  read_at timestamptz,
  push text NOT NULL DEFAULT 'none' CHECK (push IN ('none', 'due', 'sent', 'refused', 'failed')),
  push_at timestamptz,
  attempts integer NOT NULL DEFAULT 0,
  UNIQUE (resident, kind, key)
);
CREATE INDEX messages_by_resident ON messages (resident, id);
CREATE INDEX messages_to_push ON messages (push_at) WHERE push = 'due';

CREATE TABLE subscriptions (
  resident bytea NOT NULL REFERENCES residents,
  template text NOT NULL,
  quota integer NOT NULL CHECK (quota >= 0),
  refused_at timestamptz,
  PRIMARY KEY (resident, template)
);

-- What administrators set without a program change: one row a name, JSON.
CREATE TABLE settings (
  name text PRIMARY KEY,
  value jsonb NOT NULL,
  revision integer NOT NULL,
  changed_at timestamptz NOT NULL
);
"""

_BELONGING = """
CREATE TABLE challenges (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  month integer NOT NULL,
  revision integer NOT NULL,
  body jsonb NOT NULL,
  state text NOT NULL CHECK (state IN ('draft', 'open', 'closed')),
  changed_at timestamptz NOT NULL
);
CREATE INDEX challenges_by_month ON challenges (month);

CREATE TABLE challenge_members (
  challenge bytea NOT NULL REFERENCES challenges,
  resident bytea NOT NULL REFERENCES residents,
  joined_at timestamptz NOT NULL,
  reached_at timestamptz,
  PRIMARY KEY (challenge, resident)
);
CREATE INDEX challenge_members_by_resident ON challenge_members (resident);

CREATE TABLE rankings (
  resident bytea PRIMARY KEY REFERENCES residents,
  nickname bytea NOT NULL,
  opted_at timestamptz NOT NULL
);

CREATE TABLE friend_codes (
  code bytea PRIMARY KEY CHECK (octet_length(code) = 32),
  resident bytea NOT NULL REFERENCES residents,
  expires_at timestamptz NOT NULL
);
CREATE INDEX friend_codes_by_resident ON friend_codes (resident);

CREATE TABLE friends (
  resident bytea NOT NULL REFERENCES residents,
  friend bytea NOT NULL REFERENCES residents,
  since timestamptz NOT NULL,
  PRIMARY KEY (resident, friend)
);
CREATE INDEX friends_of ON friends (friend);
"""

_RIGHTS = """
CREATE TABLE archives (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  resident bytea NOT NULL REFERENCES residents,
  state text NOT NULL CHECK (state IN ('queued', 'ready', 'failed')),
  asked_at timestamptz NOT NULL,
  ready_at timestamptz,
  sealed bytea
);
CREATE INDEX archives_by_resident ON archives (resident, asked_at);

-- Erasure is asked for twice: the second time with the code that the first one gave.
CREATE TABLE farewells (
  resident bytea PRIMARY KEY REFERENCES residents,
  code bytea NOT NULL CHECK (octet_length(code) = 32),
  asked_at timestamptz NOT NULL
);

-- How late each provider's activities arrive: counts by day of receipt and bin of delay.
CREATE TABLE arrival_delays (
  provider text NOT NULL,
  day integer NOT NULL,
  bin smallint NOT NULL,
  acts bigint NOT NULL CHECK (acts > 0),
  PRIMARY KEY (provider, day, bin)
);
"""

_TABLES = (
    "logins, login_codes, refresh_tokens, sign_outs, phones, privacy_acceptances,"
    " binding_codes, binding_disputes, step_days, reports, evidence, appeals, messages,"
    " subscriptions, settings, challenges, challenge_members, rankings, friend_codes, friends,"
    " archives, farewells, arrival_delays"
)


def upgrade() -> None:
    for part in (_LOGIN, _JOINING, _REPORTS, _DISPUTES, _BELONGING, _RIGHTS):
        op.execute(part)
    op.execute("GRANT SELECT, INSERT ON privacy_notices TO puhui_app")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {_TABLES} TO puhui_app")
