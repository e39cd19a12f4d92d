"""Where points are spent: partners, charges, rewards, orders, vouchers, bills, webhooks, cases."""

from alembic import op

revision = "0006_merchants"
down_revision = "0005_consents"
branch_labels = None
depends_on = None

# A merchant's id is the token of its account in the ledger; `low_at` is since when its allowance is
# below the contract's alert level.
_PARTNERS = """
CREATE TABLE merchants (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  code text NOT NULL UNIQUE CHECK (code ~ '^[a-z0-9][a-z0-9-]{1,30}$'),
  name text NOT NULL,
  licence text NOT NULL,
  contact bytea NOT NULL,
  state text NOT NULL CHECK (state IN ('applied', 'approved', 'suspended', 'closed')),
  reason text NOT NULL DEFAULT '',
  revision integer NOT NULL DEFAULT 1,
  sandbox boolean NOT NULL DEFAULT false,
  applied_at timestamptz NOT NULL,
  decided_at timestamptz,
  low_at timestamptz
);

CREATE TABLE contracts (
  merchant bytea NOT NULL REFERENCES merchants,
  number integer NOT NULL CHECK (number > 0),
  payer text NOT NULL CHECK (payer IN ('city', 'merchant')),
  mode text NOT NULL CHECK (mode IN ('prepaid', 'postpaid')),
  fen_per_100_points integer NOT NULL CHECK (fen_per_100_points >= 0),
  limit_points bigint NOT NULL CHECK (limit_points >= 0),
  alert_points bigint NOT NULL CHECK (alert_points >= 0),
  reference text NOT NULL,
  made_at timestamptz NOT NULL,
  PRIMARY KEY (merchant, number)
);

CREATE TABLE stores (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  merchant bytea NOT NULL REFERENCES merchants,
  code text NOT NULL CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$'),
  name text NOT NULL,
  district text NOT NULL,
  address text NOT NULL,
  open boolean NOT NULL DEFAULT true,
  UNIQUE (merchant, code)
);

CREATE TABLE tills (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  merchant bytea NOT NULL REFERENCES merchants,
  store bytea NOT NULL REFERENCES stores,
  code text NOT NULL CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$'),
  open boolean NOT NULL DEFAULT true,
  UNIQUE (merchant, code)
);

-- `number` is the merchant's own for its employee; who that is, it need not tell us.
CREATE TABLE staff (
  merchant bytea NOT NULL REFERENCES merchants,
  number text NOT NULL CHECK (number ~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$'),
  role text NOT NULL CHECK (role IN ('owner', 'manager', 'cashier')),
  resident bytea REFERENCES residents,
  active boolean NOT NULL DEFAULT true,
  link_code bytea UNIQUE CHECK (octet_length(link_code) = 32),
  link_expires_at timestamptz,
  PRIMARY KEY (merchant, number)
);
CREATE INDEX staff_by_resident ON staff (resident) WHERE resident IS NOT NULL;

CREATE TABLE merchant_keys (
  key_id text PRIMARY KEY,
  merchant bytea NOT NULL REFERENCES merchants,
  till bytea REFERENCES tills,
  algorithm text NOT NULL CHECK (algorithm IN ('ed25519', 'rsa-sha256')),
  public_key bytea NOT NULL,
  created_at timestamptz NOT NULL,
  revoked_at timestamptz
);
"""

# What a till asked for, under the merchant's own number. A charge's digest is null if its reversal
# came first. Whose it was is forgotten with the person; what was paid is not.
_TILLS = """
CREATE TABLE pay_codes (
  code bytea PRIMARY KEY CHECK (octet_length(code) = 32),
  resident bytea NOT NULL REFERENCES residents,
  device bytea,
  voucher bytea,
  expires_at timestamptz NOT NULL,
  used_at timestamptz
);
CREATE INDEX pay_codes_by_age ON pay_codes (expires_at);
CREATE INDEX pay_codes_by_resident ON pay_codes (resident);

CREATE TABLE charges (
  merchant bytea NOT NULL REFERENCES merchants,
  number text NOT NULL,
  id bytea NOT NULL UNIQUE CHECK (octet_length(id) = 16),
  digest bytea CHECK (octet_length(digest) = 32),
  resident bytea,
  device bytea,
  store bytea REFERENCES stores,
  till bytea REFERENCES tills,
  staff text,
  points bigint NOT NULL CHECK (points >= 0),
  refunded bigint NOT NULL DEFAULT 0 CHECK (refunded BETWEEN 0 AND points),
  state text NOT NULL CHECK (state IN ('pending', 'succeeded', 'failed', 'reversed')),
  code text NOT NULL DEFAULT '',
  detail text NOT NULL DEFAULT '',
  hold bytea,
  entry bytea,
  at timestamptz NOT NULL,
  expires_at timestamptz,
  closed_at timestamptz,
  PRIMARY KEY (merchant, number)
) WITH (fillfactor = 90);
CREATE INDEX charges_by_resident ON charges (resident, at) WHERE resident IS NOT NULL;
CREATE INDEX charges_by_device ON charges (device, at) WHERE device IS NOT NULL;
CREATE INDEX charges_pending ON charges (expires_at) WHERE state = 'pending';

CREATE TABLE refunds (
  merchant bytea NOT NULL REFERENCES merchants,
  number text NOT NULL,
  digest bytea NOT NULL CHECK (octet_length(digest) = 32),
  charge text NOT NULL,
  points bigint NOT NULL CHECK (points > 0),
  state text NOT NULL CHECK (state IN ('succeeded', 'failed')),
  code text NOT NULL DEFAULT '',
  detail text NOT NULL DEFAULT '',
  staff text,
  reason text NOT NULL,
  entry bytea,
  at timestamptz NOT NULL,
  PRIMARY KEY (merchant, number)
);
CREATE INDEX refunds_by_charge ON refunds (merchant, charge);
"""

# `remaining` is null where there is no end to it (donations); its CHECK forbids overselling.
_REWARDS = """
CREATE TABLE rewards (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  merchant bytea NOT NULL REFERENCES merchants,
  code text NOT NULL CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$'),
  kind text NOT NULL
    CHECK (kind IN ('voucher', 'ride', 'goods', 'donation', 'rate_coupon')),
  codes text NOT NULL CHECK (codes IN ('generated', 'pool', 'none')),
  title_zh text NOT NULL,
  title_en text NOT NULL,
  text_zh text NOT NULL,
  project text NOT NULL DEFAULT '',
  points bigint NOT NULL CHECK (points > 0),
  per_person integer CHECK (per_person > 0),
  per_day integer CHECK (per_day > 0),
  valid_days integer NOT NULL CHECK (valid_days BETWEEN 1 AND 3650),
  unused text NOT NULL CHECK (unused IN ('refund', 'lapse')),
  opens_at timestamptz NOT NULL,
  closes_at timestamptz NOT NULL,
  districts text[],
  from_14 boolean NOT NULL DEFAULT false,
  min_reduction_mg bigint NOT NULL DEFAULT 0 CHECK (min_reduction_mg >= 0),
  store bytea REFERENCES stores,
  state text NOT NULL CHECK (state IN ('draft', 'open', 'paused', 'closed')),
  revision integer NOT NULL DEFAULT 1,
  made_at timestamptz NOT NULL,
  UNIQUE (merchant, code)
);
CREATE INDEX rewards_open ON rewards (points, id) WHERE state = 'open';

CREATE TABLE reward_stock (
  reward bytea PRIMARY KEY REFERENCES rewards,
  remaining bigint CHECK (remaining >= 0),
  sold bigint NOT NULL DEFAULT 0 CHECK (sold >= 0)
) WITH (fillfactor = 50);

CREATE TABLE reward_days (
  reward bytea NOT NULL REFERENCES rewards,
  day integer NOT NULL,
  sold integer NOT NULL CHECK (sold >= 0),
  PRIMARY KEY (reward, day)
) WITH (fillfactor = 50);

CREATE TABLE orders (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  reward bytea NOT NULL REFERENCES rewards,
  merchant bytea NOT NULL REFERENCES merchants,
  resident bytea,
  quantity integer NOT NULL CHECK (quantity BETWEEN 1 AND 100),
  points bigint NOT NULL CHECK (points > 0),
  state text NOT NULL CHECK (state IN ('held', 'confirmed', 'released')),
  hold bytea NOT NULL,
  entry bytea,
  refunded bigint NOT NULL DEFAULT 0 CHECK (refunded BETWEEN 0 AND points),
  placed_on integer NOT NULL,
  placed_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  closed_at timestamptz,
  reason text NOT NULL DEFAULT ''
) WITH (fillfactor = 80);
CREATE INDEX orders_by_resident ON orders (resident, placed_at) WHERE resident IS NOT NULL;
CREATE INDEX orders_held ON orders (expires_at) WHERE state = 'held';

-- Codes the merchant brought, until they are given out with an order.
CREATE TABLE reward_codes (
  digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
  reward bytea NOT NULL REFERENCES rewards,
  sealed bytea NOT NULL,
  taken boolean NOT NULL DEFAULT false
);
CREATE INDEX reward_codes_free ON reward_codes (reward) WHERE NOT taken;
"""

_VOUCHERS = """
CREATE TABLE vouchers (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  "order" bytea NOT NULL REFERENCES orders,
  reward bytea NOT NULL REFERENCES rewards,
  merchant bytea NOT NULL REFERENCES merchants,
  resident bytea,
  points bigint NOT NULL CHECK (points > 0),
  digest bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
  sealed bytea,
  state text NOT NULL CHECK (state IN ('issued', 'used', 'voided', 'lapsed')),
  valid_until integer NOT NULL,
  issued_at timestamptz NOT NULL,
  changed_at timestamptz NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX vouchers_by_resident ON vouchers (resident, issued_at) WHERE resident IS NOT NULL;
CREATE INDEX vouchers_by_order ON vouchers ("order");
CREATE INDEX vouchers_to_end ON vouchers (valid_until) WHERE state = 'issued';

-- Uses, returns and voids, each under a number of the merchant's; `use` names the use returned.
CREATE TABLE voucher_moves (
  merchant bytea NOT NULL REFERENCES merchants,
  number text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('use', 'return', 'void')),
  digest bytea NOT NULL CHECK (octet_length(digest) = 32),
  voucher bytea REFERENCES vouchers,
  use text,
  state text NOT NULL CHECK (state IN ('succeeded', 'failed')),
  code text NOT NULL DEFAULT '',
  detail text NOT NULL DEFAULT '',
  store bytea REFERENCES stores,
  till bytea REFERENCES tills,
  staff text,
  reason text NOT NULL DEFAULT '',
  offline boolean NOT NULL DEFAULT false,
  at timestamptz NOT NULL,
  PRIMARY KEY (merchant, number)
);
CREATE INDEX voucher_moves_by_voucher ON voucher_moves (voucher);
"""

# A bill is its lines; nothing else is ever paid for. `points` is what a redemption cancelled, or
# what a refund gave back if negative. `day` is the business day whose bill has the line: its own,
# or the first one still open. Who cuts a day takes the same lock alone, so each line is in before
# the cut or sees it; a statement in a trigger's function sees what was committed when it begins.
_BILLS = """
CREATE TABLE bill_lines (
  arrival bigint PRIMARY KEY,
  merchant bytea NOT NULL,
  day integer NOT NULL,
  kind text NOT NULL CHECK (kind IN ('charge', 'refund', 'reverse', 'order', 'void', 'lapse')),
  number text NOT NULL,
  origin text NOT NULL DEFAULT '',
  entry bytea NOT NULL,
  points bigint NOT NULL CHECK (points <> 0),
  store bytea,
  till bytea,
  at timestamptz NOT NULL
);
CREATE INDEX bill_lines_by_day ON bill_lines (merchant, day, arrival);

CREATE TABLE bill_head (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  closed integer NOT NULL
);
INSERT INTO bill_head (closed) VALUES (20000101);

CREATE FUNCTION into_an_open_day() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE last integer;
BEGIN
  PERFORM pg_advisory_xact_lock_shared(hashtextextended('bills', 0));
  SELECT closed INTO last FROM bill_head;
  IF NEW.day <= last THEN
    NEW.day := to_char(to_date(last::text, 'YYYYMMDD') + 1, 'YYYYMMDD')::integer;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER into_an_open_day BEFORE INSERT ON bill_lines
  FOR EACH ROW EXECUTE FUNCTION into_an_open_day();

CREATE TABLE bills (
  merchant bytea NOT NULL REFERENCES merchants,
  day integer NOT NULL,
  contract integer NOT NULL,
  lines bigint NOT NULL,
  points bigint NOT NULL,
  milli_fen bigint NOT NULL,
  csv_sha256 bytea NOT NULL CHECK (octet_length(csv_sha256) = 32),
  closed_at timestamptz NOT NULL,
  PRIMARY KEY (merchant, day)
);

CREATE TABLE bill_payments (
  merchant bytea NOT NULL,
  day integer NOT NULL,
  reference text NOT NULL,
  paid_at timestamptz NOT NULL,
  PRIMARY KEY (merchant, day),
  FOREIGN KEY (merchant, day) REFERENCES bills
);
"""

_WEBHOOKS = """
CREATE TABLE webhook_endpoints (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  merchant bytea NOT NULL REFERENCES merchants,
  url text NOT NULL,
  secret bytea NOT NULL,
  old_secret bytea,
  old_until timestamptz,
  kinds text[] NOT NULL,
  state text NOT NULL CHECK (state IN ('pending', 'active', 'disabled')),
  reason text NOT NULL DEFAULT '',
  made_at timestamptz NOT NULL,
  verified_at timestamptz,
  failing_since timestamptz,
  UNIQUE (merchant, url)
);

CREATE TABLE webhook_events (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  merchant bytea NOT NULL REFERENCES merchants,
  kind text NOT NULL,
  body bytea NOT NULL,
  at timestamptz NOT NULL,
  spread boolean NOT NULL DEFAULT false
);
CREATE INDEX webhook_events_by_merchant ON webhook_events (merchant, at, id);
CREATE INDEX webhook_events_by_age ON webhook_events (at);
CREATE INDEX webhook_events_to_spread ON webhook_events (at) WHERE NOT spread;

-- A replay begins the ladder anew: it counts attempts from `ladder_from` on.
CREATE TABLE webhook_deliveries (
  event bytea NOT NULL REFERENCES webhook_events ON DELETE CASCADE,
  endpoint bytea NOT NULL REFERENCES webhook_endpoints,
  state text NOT NULL CHECK (state IN ('waiting', 'delivered', 'dead')),
  attempts integer NOT NULL DEFAULT 0,
  ladder_from integer NOT NULL DEFAULT 0,
  next_at timestamptz NOT NULL,
  claimed_until timestamptz,
  PRIMARY KEY (event, endpoint)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint, next_at)
  WHERE state = 'waiting';
CREATE INDEX webhook_deliveries_dead ON webhook_deliveries (endpoint) WHERE state = 'dead';
CREATE INDEX webhook_deliveries_claimed ON webhook_deliveries (endpoint)
  WHERE claimed_until IS NOT NULL;

CREATE TABLE webhook_attempts (
  event bytea NOT NULL,
  endpoint bytea NOT NULL,
  attempt integer NOT NULL,
  at timestamptz NOT NULL,
  ms integer NOT NULL,
  status integer,
  error text NOT NULL,
  PRIMARY KEY (event, endpoint, attempt),
  FOREIGN KEY (event, endpoint) REFERENCES webhook_deliveries ON DELETE CASCADE
);

-- How far the sealed log has been told: events of the ledger are made in leaf order.
CREATE TABLE webhook_head (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  leaf bigint NOT NULL
);
INSERT INTO webhook_head (leaf) VALUES (0);
"""

_CASES = """
CREATE TABLE cases (
  id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
  kind text NOT NULL CHECK (kind IN ('fraud', 'difference', 'offline')),
  rule text NOT NULL,
  shadow boolean NOT NULL DEFAULT false,
  merchant bytea REFERENCES merchants,
  resident bytea,
  facts jsonb NOT NULL,
  times integer NOT NULL DEFAULT 1,
  state text NOT NULL CHECK (state IN ('open', 'upheld', 'dismissed')),
  opened_at timestamptz NOT NULL,
  last_at timestamptz NOT NULL,
  closed_at timestamptz,
  closed_by text,
  reason text NOT NULL DEFAULT ''
);
CREATE INDEX cases_by_state ON cases (state, opened_at, id);
CREATE INDEX cases_by_merchant ON cases (merchant, opened_at);
CREATE INDEX cases_by_resident ON cases (resident) WHERE resident IS NOT NULL;
"""

_GRANTS = """
GRANT SELECT, INSERT ON contracts, bill_lines, bills, bill_payments TO puhui_app;
GRANT SELECT, UPDATE ON bill_head, webhook_head TO puhui_app;
GRANT SELECT, INSERT, UPDATE ON merchants, stores, tills, staff, merchant_keys, charges, refunds,
  rewards, reward_stock, reward_days, orders, vouchers, voucher_moves, webhook_endpoints,
  webhook_deliveries, cases TO puhui_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_events TO puhui_app;
GRANT SELECT, INSERT, DELETE ON webhook_attempts TO puhui_app;
GRANT DELETE ON webhook_deliveries, webhook_endpoints TO puhui_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON pay_codes, reward_codes TO puhui_app;
"""

_APPEND_ONLY = ("contracts", "bill_lines", "bills", "bill_payments")


def upgrade() -> None:
    for part in (_PARTNERS, _TILLS, _REWARDS, _VOUCHERS, _BILLS, _WEBHOOKS, _CASES, _GRANTS):
        op.execute(part)
    for table in _APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
