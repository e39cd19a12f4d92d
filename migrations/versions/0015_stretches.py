"""Stretches: what is written at random is written in a small part of its index, however old."""

from alembic import op

revision = "0015_stretches"
down_revision = "0014_signed"
branch_labels = None
depends_on = None

# Residents come in any order. In an index by resident each line goes to another page of all there
# are: read from disk, logged as a whole after each checkpoint, written back; the older the city,
# the more. So lines are kept by stretches of two million arrivals (2^21), in each by resident, and
# the last stretch stays in memory. Who asks for a resident's lines asks stretch by stretch.
_POSTINGS = """
DROP INDEX postings_by_person;
CREATE INDEX postings_by_person ON postings ((arrival >> 21), account, arrival)
  WHERE account_kind <= 3;

-- The sequence is asked: what is just being written makes the greatest arrival slow to find.
GRANT SELECT ON SEQUENCE arrivals TO puhui_app;
CREATE FUNCTION stretches(since bigint, below bigint) RETURNS SETOF bigint
LANGUAGE sql STABLE AS $$
  SELECT generate_series(
    least((SELECT last_value FROM arrivals), below) >> 21, since >> 21, -1)
$$;

CREATE FUNCTION own_postings(who bytea, since bigint) RETURNS SETOF postings
LANGUAGE sql STABLE AS $$
  SELECT p.* FROM stretches(since, 9223372036854775807) s JOIN postings p ON p.arrival >> 21 = s
  WHERE p.account = who AND p.account_kind <= 3 AND p.arrival >= since
$$;
"""

# Likewise: nearly all that is counted is counted in this day and this month. `used_periods` finds
# each period by one look, for who asks for a resident's counters of all of them.
_USAGE = """
ALTER TABLE usage DROP CONSTRAINT usage_pkey;
ALTER TABLE usage ADD PRIMARY KEY (period, resident, scenario);

CREATE FUNCTION used_periods() RETURNS SETOF integer LANGUAGE sql STABLE AS $$
  WITH RECURSIVE found (period) AS (
    SELECT min(u.period) FROM usage u
    UNION ALL
    SELECT (SELECT min(u.period) FROM usage u WHERE u.period > found.period)
    FROM found WHERE found.period IS NOT NULL)
  SELECT period FROM found WHERE period IS NOT NULL
$$;
"""


def upgrade() -> None:
    for part in (_POSTINGS, _USAGE):
        op.execute(part)
