"""The one database handle, and the idioms the stores share: COPY in, rows out, once more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, TypeVar

import psycopg
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory
from flask_sqlalchemy import SQLAlchemy
from psycopg.types.string import BytesBinaryDumper
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from app.store import driver as driver  # every engine opens its connections

db = SQLAlchemy()


T = TypeVar("T")
_ATTEMPTS = 5
# unique_violation: another transaction wrote the same entry first. deadlock_detected,
# serialization_failure: the database chose us to step back. All vanish when tried again.
_AGAIN = frozenset({"23505", "40P01", "40001"})


def transact(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Run `work` in one transaction and commit it; again from the start if it lost a race."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with engine.begin() as tx:
                return work(tx)
        except DBAPIError as error:
            if attempt == _ATTEMPTS or not lost_a_race(error):
                raise
    raise AssertionError("unreachable")


def lost_a_race(error: DBAPIError) -> bool:
    """Whether a transaction failed only because of another one, and may be tried again."""
    return getattr(error.orig, "sqlstate", None) in _AGAIN


def copy_in(
    tx: Connection, table: str, columns: dict[str, str], rows: Iterable[Sequence[Any]]
) -> None:
    """COPY rows into a table in binary form; `columns` maps each name to its PostgreSQL type.

    Raises DBAPIError like any other statement, though SQLAlchemy does not see this one.
    """
    driver: Any = tx.connection.driver_connection
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"
    try:
        with driver.cursor() as cursor:
            # COPY takes what was last registered for bytea: by default a dumper in Python
            cursor.adapters.register_dumper(bytes, BytesBinaryDumper)
            with cursor.copy(statement) as copy:
                copy.set_types(list(columns.values()))
                for row in rows:
                    copy.write_row(row)
    except psycopg.Error as error:
        raise DBAPIError.instance(statement, None, error, psycopg.Error) from error


def fetch(
    tx: Connection, statement: str, parameters: Sequence[Any] | Mapping[str, Any]
) -> list[Any]:
    """The rows of a query in the driver's own SQL (%s or %(name)s), read in binary: for statements
    so small that what SQLAlchemy adds costs as much as they do. Raises DBAPIError."""
    driver: Any = tx.connection.driver_connection
    try:
        rows: list[Any] = driver.rows(statement, parameters)
        return rows
    except psycopg.Error as error:
        raise DBAPIError.instance(statement, None, error, psycopg.Error) from error


def snapshot(engine: Engine) -> Connection:
    """A connection whose statements all see the database as it stood at the first of them."""
    return engine.connect().execution_options(isolation_level="REPEATABLE READ")


def int_array(values: Iterable[int]) -> str:
    """An array literal to CAST: the driver's own lists cost several times as much an element."""
    return "{" + ",".join(map(str, values)) + "}"


def bytea_array(values: Iterable[bytes]) -> str:
    """An array literal of byte strings."""
    inner = '","\\\\x'.join([value.hex() for value in values])
    return '{"\\\\x' + inner + '"}' if inner else "{}"


def text_array(values: Iterable[str]) -> str:
    """An array literal of texts."""
    values = list(values)
    joined = '","'.join(values)
    if "\\" not in joined and joined.count('"') == 2 * max(0, len(values) - 1):
        return '{"' + joined + '"}' if values else "{}"
    quoted = [value.replace("\\", "\\\\").replace('"', '\\"') for value in values]
    return '{"' + '","'.join(quoted) + '"}' if quoted else "{}"


def one_statement(engine: Engine) -> Connection:
    """A connection for reads of one statement each, which need no BEGIN and ROLLBACK around."""
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def _alembic() -> AlembicConfig:
    settings = AlembicConfig()
    settings.set_main_option("script_location", str(files("migrations")))
    return settings


def migrate(owner_url: str) -> None:
    """Bring the schema to the newest version, as the role that owns it."""
    engine = create_engine(owner_url)
    settings = _alembic()
    with engine.begin() as connection:
        settings.attributes["connection"] = connection
        command.upgrade(settings, "head")
    engine.dispose()


def schema_is_current(tx: Connection) -> bool:
    """Whether the database stands at this program's newest migration."""
    try:
        found = tx.execute(text("SELECT version_num FROM alembic_version")).scalar()
    except DBAPIError:
        return False
    return found == ScriptDirectory.from_config(_alembic()).get_current_head()
