"""The driver's connection: what is prepared, for how long, and whatever goes wrong has its name."""

from __future__ import annotations

from contextlib import suppress

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.store.db import fetch, one_statement, snapshot


def driver(tx):
    return tx.connection.driver_connection


def prepared(tx):
    return fetch(tx, "SELECT name, statement FROM pg_prepared_statements WHERE name <> %s", ("",))


def test_parameters_go_by_place_or_by_name_and_a_percent_stands_for_itself(city):
    with city.engine.connect() as tx:
        assert fetch(tx, "SELECT %s::int, %s::text, 7 %% 4", (1, "a%s")) == [(1, "a%s", 3)]
        named = {"a": 1, "b": b"\0\xff", "unused": 9}
        assert fetch(tx, "SELECT %(a)s::int, %(b)s::bytea, %(a)s::int", named) == [
            (1, b"\0\xff", 1)
        ]


def test_values_of_other_types_are_another_preparation(city):
    with city.engine.connect() as tx:
        for value in (1, 2**20, 2**40, 2**70, None, 1):
            assert fetch(tx, "SELECT %s::numeric", (value,)) == [(value,)]


def test_what_is_prepared_outlives_a_rollback_and_a_commit(city):
    with city.engine.connect() as tx:
        before, mine = prepared(tx), driver(tx)
        for end in (mine.rollback, mine.commit):
            end()
            assert mine.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
            assert set(before) <= set(prepared(tx))


def test_a_transaction_holds_together_and_goes_back_as_a_whole(city):
    with city.engine.connect() as tx:
        fetch(tx, "SELECT set_config('puhui.mark', 'x', true)", ())
        tx.execute(text("SELECT 1"))  # SQLAlchemy's statements and these share one transaction
        assert fetch(tx, "SELECT current_setting('puhui.mark')", ()) == [("x",)]
        driver(tx).rollback()
        assert fetch(tx, "SELECT current_setting('puhui.mark', true)", ()) == [("",)]


def test_a_statement_alone_is_no_transaction(city):
    with one_statement(city.engine) as alone:
        fetch(alone, "SELECT set_config('puhui.mark', 'x', true)", ())
        assert fetch(alone, "SELECT current_setting('puhui.mark', true)", ()) == [("",)]


def test_a_snapshot_stays_one(city):
    with snapshot(city.engine) as tx:
        (one,) = fetch(tx, "SELECT pg_current_snapshot()::text, current_setting(%s)", (
            "transaction_isolation",
        ))  # fmt: skip
        with city.engine.begin() as other:
            other.execute(text("SELECT nextval('arrivals'), pg_current_xact_id()"))
        assert fetch(tx, "SELECT pg_current_snapshot()::text, 'repeatable read'", ()) == [one]


@pytest.mark.parametrize(
    ("statement", "state"),
    [("SELECT nowhere", "42703"), ("SELECT 1/%s::int", "22012"), ("SELEC", "42601")],
)
def test_an_error_is_named_and_the_connection_goes_on(city, statement, state):
    given = (0,) if "%s" in statement else ()
    with city.engine.connect() as tx:
        with pytest.raises(DBAPIError) as refused:
            fetch(tx, statement, given)
        assert refused.value.orig.sqlstate == state
        driver(tx).rollback()
        assert fetch(tx, "SELECT 1", ()) == [(1,)]


def test_a_server_that_goes_away_is_an_operational_error_and_its_connection_is_not_used_again(city):
    with suppress(DBAPIError), one_statement(city.engine) as alone:
        ((mine,),) = fetch(alone, "SELECT pg_backend_pid()", ())
        with city.engine.connect() as other:
            assert fetch(other, "SELECT pg_terminate_backend(%s::int, 5000)", (mine,)) == [(True,)]
        with pytest.raises(DBAPIError) as gone:
            fetch(alone, "SELECT 1", ())
    assert isinstance(gone.value.orig, psycopg.OperationalError)
    for _ in range(4):
        with one_statement(city.engine) as alone:
            assert fetch(alone, "SELECT pg_backend_pid() = %s::int", (mine,)) == [(False,)]


def test_a_plan_made_while_a_table_was_empty_does_not_outlive_its_growth(city):
    query, wanted = "SELECT n FROM grown WHERE n = %s", (2**40,)

    def scans():
        ((said,),) = fetch(
            tx, "SELECT seq_scan FROM pg_stat_xact_all_tables WHERE relname = %s", ("grown",)
        )
        return said

    with city.engine.connect() as tx:
        tx.execute(text("CREATE TEMP TABLE grown (n bigint PRIMARY KEY) ON COMMIT DROP"))
        tx.execute(text("ANALYZE grown"))
        for _ in range(10):
            fetch(tx, query, wanted)
        before = scans()
        tx.execute(text("INSERT INTO grown SELECT 1099511627776 + generate_series(0, 5000)"))
        fetch(tx, query, wanted)
        assert scans() > before, "nothing told the server to plan anew"
        for _ in range(10):
            fetch(tx, query, wanted)
        before = scans()
        assert [fetch(tx, query, wanted) for _ in range(200)] == [[wanted]] * 200
        assert scans() == before
