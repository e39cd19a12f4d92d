"""The database itself refuses to change what was written, whoever asks, and the application's
role owns nothing."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import text

from app.flows.trail import act

APPEND_ONLY = (
    "entries", "postings", "runs", "tiles", "checkpoints", "batches", "scenario_versions",
    "scenario_withdrawals", "trail", "contracts", "bill_lines", "bills", "bill_payments",
)  # fmt: skip
_REFUSALS = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.RestrictViolation,
    psycopg.errors.FeatureNotSupported,  # TRUNCATE of a table that another refers to
)
_OWNED = """
SELECT 'relation', relname::text FROM pg_class WHERE relowner = 'puhui_app'::regrole
UNION ALL SELECT 'function', proname FROM pg_proc WHERE proowner = 'puhui_app'::regrole
UNION ALL SELECT 'schema', nspname FROM pg_namespace WHERE nspowner = 'puhui_app'::regrole
UNION ALL SELECT 'type', typname FROM pg_type WHERE typowner = 'puhui_app'::regrole
UNION ALL SELECT 'database', datname FROM pg_database WHERE datdba = 'puhui_app'::regrole"""
_BILL = """
WITH m AS (INSERT INTO merchants (id, code, name, licence, contact, state, applied_at)
  VALUES (substr(sha256(''), 1, 16), 'noodles', '', '', '', 'approved', now()) RETURNING id),
c AS (INSERT INTO contracts SELECT id, 1, 'city', 'prepaid', 100, 0, 0, '', now() FROM m),
l AS (INSERT INTO bill_lines SELECT 1, id, 20261122, 'charge', '', '', id, 1, NULL, NULL, now()
  FROM m),
b AS (INSERT INTO bills SELECT id, 20261122, 1, 1, 1, 1, sha256(''), now() FROM m)
INSERT INTO bill_payments SELECT id, 20261122, '', now() FROM m"""
_ROLE = """
SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,
  (SELECT count(*) FROM pg_auth_members WHERE member = r.oid)
FROM pg_roles r WHERE rolname = 'puhui_app'"""


@pytest.fixture
def written(town):
    """A town with at least one row in each append-only table."""
    town.enroll("rider-0")
    town.send("b1", *(town.dated(n) for n in range(260)))
    with town.engine.begin() as tx:
        act(tx, "ann", "draft.withdrawn", "d1", {}, town.clock())
        tx.execute(text(
            "INSERT INTO scenario_withdrawals SELECT scenario, number, now()"
            " FROM scenario_versions LIMIT 1"
        ))  # fmt: skip
        tx.execute(text(_BILL))
    town.seal()
    with town.engine.begin() as tx:
        act(tx, "cli", "tested", "nothing", {}, town.clock())
        tx.execute(text("INSERT INTO scenario_withdrawals VALUES ('travel.bike_shared', 1, now())"))
    for table in APPEND_ONLY:
        assert town.value(f"SELECT count(*) FROM {table}") > 0
    return town


@pytest.fixture(params=["puhui_app", "puhui_owner"])
def role(request, written):
    url = written.config.owner_url.replace("+psycopg", "")
    with psycopg.connect(url.replace("puhui_owner@", f"{request.param}@"), autocommit=True) as one:
        yield one


@pytest.fixture
def app(written):
    with psycopg.connect(written.config.database_url.replace("+psycopg", "")) as one:
        one.autocommit = True
        yield one


def refused(connection, statement):
    with pytest.raises(_REFUSALS):
        connection.execute(statement)


def test_nobody_updates_deletes_or_truncates_what_is_only_appended_to(role, written):
    before = written.digest()
    for table in APPEND_ONLY:
        column = written.value(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:t) AND attnum = 1",
            t=table,
        )
        refused(role, f"UPDATE {table} SET {column} = {column}")
        refused(role, f"UPDATE {table} SET {column} = {column} WHERE false")
        refused(role, f"DELETE FROM {table}")
        refused(role, f"TRUNCATE {table}")
        refused(role, f"TRUNCATE {table} CASCADE")
    assert written.digest() == before


def test_every_table_that_keeps_what_was_written_is_named_here(written):
    guarded = "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'append_only'"
    assert sorted(name for (name,) in written.rows(guarded)) == sorted(APPEND_ONLY)


def test_the_applications_role_owns_nothing_and_is_nobody_special(app):
    assert app.execute(_OWNED).fetchall() == []
    assert app.execute(_ROLE).fetchone() == (False, False, False, False, False, 0)


def test_the_applications_role_cannot_touch_the_schema(app, written):
    tables = [
        name
        for (name,) in written.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    ]
    assert set(APPEND_ONLY) < set(tables)
    for table in tables:
        refused(app, f"ALTER TABLE {table} ADD COLUMN extra integer")
        refused(app, f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        refused(app, f"ALTER TABLE {table} OWNER TO puhui_app")
        refused(app, f"DROP TABLE {table} CASCADE")
        refused(app, f"TRUNCATE {table}")
    for table in APPEND_ONLY:
        refused(app, f"DROP TRIGGER append_only ON {table}")
        refused(app, f"CREATE RULE quiet AS ON INSERT TO {table} DO INSTEAD NOTHING")
        refused(
            app, f"CREATE TRIGGER other BEFORE INSERT ON {table} EXECUTE FUNCTION refuse_change()"
        )
    for statement in (
        "CREATE TABLE mine (n integer)",
        "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA mine",
        "ALTER SEQUENCE arrivals RESTART",
        "SELECT setval('arrivals', 1)",
        "DROP FUNCTION refuse_change() CASCADE",
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RETURN NULL; END'",
        "SET session_replication_role = replica",
        "SET ROLE puhui_owner",
        "SET SESSION AUTHORIZATION puhui_owner",
        "ALTER ROLE puhui_app SUPERUSER",
        "GRANT puhui_owner TO puhui_app",
        "COPY entries TO PROGRAM 'cat'",
        "COPY entries FROM '/dev/null'",
        "SELECT pg_read_file('PG_VERSION')",
        "SELECT * FROM pg_authid",
    ):
        refused(app, statement)
    app.execute("GRANT UPDATE ON entries TO puhui_app")  # a warning: there is nothing to grant
    refused(app, "UPDATE entries SET arrival = arrival")


def test_a_guarded_balance_cannot_be_negative(app):
    with pytest.raises(psycopg.errors.CheckViolation):
        app.execute("UPDATE balances SET amount = -1 WHERE account_kind = 1")
