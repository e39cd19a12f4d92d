"""Detach: old payloads may leave for files; what may go, and nothing else, the database decides."""

from alembic import op

revision = "0010_detach"
down_revision = "0009_age"
branch_labels = None
depends_on = None

# `size` leaves, whole bundles of 256, lie in the files of `folder`, and may be without payload.
_DETACHED = """
CREATE TABLE detached (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  size bigint NOT NULL CHECK (size >= 0 AND size % 256 = 0),
  dropped bigint NOT NULL CHECK (dropped BETWEEN 0 AND size),
  folder text NOT NULL
);
INSERT INTO detached (size, dropped, folder) VALUES (0, 0, '');
GRANT SELECT ON detached TO puhui_app;
"""

_GUARD_DETACHED = """
CREATE FUNCTION guard_detached() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'UPDATE' OR NEW.size < OLD.size OR NEW.dropped < OLD.dropped
    OR NEW.size > (SELECT size FROM log_head)
  THEN
    RAISE EXCEPTION 'detached only grows, and no further than the sealed log'
      USING ERRCODE = 'restrict_violation', HINT = 'use puhui detach';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER only_grows BEFORE INSERT OR UPDATE OR DELETE ON detached
  FOR EACH ROW EXECUTE FUNCTION guard_detached();
"""

# Nothing of an entry ever changes but this: its payload may go once it lies in a file. It comes
# with one: AFTER, for a trigger BEFORE each row would have COPY write row by row.
_GUARD_ENTRIES = """
CREATE FUNCTION refuse_but_detach() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  bare entries;
BEGIN
  bare := OLD;
  bare.payload := NULL;
  IF NEW IS DISTINCT FROM bare OR NOT EXISTS (
    SELECT FROM leaves WHERE arrival = OLD.arrival AND leaf < (SELECT size FROM detached))
  THEN
    RAISE EXCEPTION 'table entries is append-only: UPDATE refused'
      USING ERRCODE = 'restrict_violation', HINT = 'append a correcting entry instead';
  END IF;
  RETURN NEW;
END $$;
DROP TRIGGER append_only ON entries;
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE OR UPDATE OF arrival, id, kind ON entries
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER only_detached BEFORE UPDATE ON entries
  FOR EACH ROW EXECUTE FUNCTION refuse_but_detach();
CREATE TRIGGER whole AFTER INSERT ON entries
  FOR EACH ROW WHEN (NEW.payload IS NULL) EXECUTE FUNCTION refuse_change();
ALTER TABLE entries ALTER payload DROP NOT NULL;
"""


def upgrade() -> None:
    for part in (_DETACHED, _GUARD_DETACHED, _GUARD_ENTRIES):
        op.execute(part)
