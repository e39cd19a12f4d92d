"""The one database handle, and the idioms the stores share: COPY in, rows out, once more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from struct import Struct, pack
from typing import Any, TypeVar

import psycopg
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory
from flask_sqlalchemy import SQLAlchemy
from psycopg.adapt import Dumper
from psycopg.pq import Format
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


def by_index(tx: Connection) -> None:
    """Until it ends, have this transaction look up by index what it reads. For whoever asks for so
    many rows at once that to read a whole table seems cheaper, which it is not, as tables grow; and
    for plans that are made while a table is empty and kept until it is analyzed."""
    tx.exec_driver_sql(
        "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;"
        " SET LOCAL enable_mergejoin = off"
    )


def snapshot(engine: Engine) -> Connection:
    """A connection whose statements all see the database as it stood at the first of them."""
    return engine.connect().execution_options(isolation_level="REPEATABLE READ")


class Array(bytes):
    """One dimension of values without NULL as PostgreSQL sends and receives it: element type and
    count, then each value with its length. The driver's own lists cost several times as much an
    element; a literal in text, which the server has to parse, twice as much."""


class IntArray(Array):
    """Of bigint; CAST it to what is wanted."""


class ByteaArray(Array):
    """Of bytea."""


class TextArray(Array):
    """Of text."""


class _IntDumper(Dumper):
    oid, format = 1016, Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


class _ByteaDumper(_IntDumper):
    oid = 1001


class _TextDumper(_IntDumper):
    oid = 1009


for _kind, _dumper in (
    (IntArray, _IntDumper),
    (ByteaArray, _ByteaDumper),
    (TextArray, _TextDumper),
):
    psycopg.adapters.register_dumper(_kind, _dumper)

_HEAD = Struct(">5i").pack  # dimensions, no NULLs, type of the elements; how many, from 1 on
_INT = Struct(">iq").pack
_LENGTH = Struct(">i").pack
_FEW = 16


def _array(element: int, count: int, values: bytes) -> bytes:
    return _HEAD(1, 0, element, count, 1) + values if count else _HEAD(0, 0, element, 0, 0)[:12]


def int_array(values: Iterable[int]) -> IntArray:
    """An array to CAST."""
    numbers = tuple(values)
    count = len(numbers)
    if count <= _FEW:
        return IntArray(_array(20, count, b"".join([_INT(8, number) for number in numbers])))
    packed, cells = pack(f">{count}q", *numbers), bytearray(12 * count)
    cells[3::12] = b"\x08" * count  # their lengths; then byte by byte, each of all of them at once
    for place in range(8):
        cells[4 + place :: 12] = packed[place::8]
    return IntArray(_array(20, count, bytes(cells)))


def bytea_array(values: Iterable[bytes]) -> ByteaArray:
    """An array of byte strings."""
    strings = list(values)
    lengths = set(map(len, strings))
    if len(lengths) == 1:
        length = _LENGTH(lengths.pop())
        return ByteaArray(_array(17, len(strings), length + length.join(strings)))
    return ByteaArray(_array(17, len(strings), b"".join(map(_cell, strings))))


def text_array(values: Iterable[str]) -> TextArray:
    """An array of texts."""
    texts = tuple(values)  # many, but few different ones
    cells = {one: _cell(one.encode()) for one in set(texts)}
    return TextArray(_array(25, len(texts), b"".join([cells[one] for one in texts])))


def _cell(value: bytes) -> bytes:
    return _LENGTH(len(value)) + value


@contextmanager
def one_statement(engine: Engine) -> Iterator[Connection]:
    """A connection on which each statement is a transaction of its own, with no BEGIN, COMMIT or
    ROLLBACK around. (SQLAlchemy's own AUTOCOMMIT asks several questions of the driver each time.)
    """
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.each_alone(True)
        try:
            yield connection
        finally:
            driver.each_alone(False)


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
