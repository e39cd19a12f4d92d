"""The driver's connection as every engine here opens it: a small statement is one call.

psycopg waits for the server from within Python, in turns, so that Ctrl-C reaches it; and it forgets
its prepared statements with each ROLLBACK, by which every read ends, for the case that one took
back a table's making. A web process does neither: what it asks stays prepared, and the thread
that asks waits in libpq, where it holds nobody up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, Final

import orjson
import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import DiagnosticField, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.types.json import set_json_loads
from sqlalchemy import Engine, event

set_json_loads(orjson.loads)  # as everywhere here
_COMMAND_OK, _TUPLES_OK = ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK
_IDLE = TransactionStatus.IDLE
_BINARY = Format.BINARY
_AUTO: Final = [PyFormat.AUTO]
_AGAIN: Final = 16


class _Ready:
    """A prepared statement: its name, and how often it is used until it is prepared anew."""

    __slots__ = ("left", "name", "times")

    def __init__(self, name: bytes, times: int) -> None:
        self.name, self.left, self.times = name, times, times


class Lean(psycopg.Connection[Any]):
    """A connection of one thread at a time, which the pool sees to."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ready: dict[tuple[str, tuple[int, ...]], _Ready] = {}  # by statement and types
        self._names = count()
        self._adapt = Transformer(self)

    def rows(self, statement: str, given: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
        """The rows of a statement in the driver's own SQL (%s or %(name)s); it is prepared at once.
        Raises psycopg.Error."""
        if not self.autocommit and self.pgconn.transaction_status == _IDLE:
            return self._first(statement, given)
        query, names = _numbered(statement)
        adapt = self._adapt
        values = [given[name] for name in names] if isinstance(given, Mapping) else given
        dumped: Any = adapt.dump_sequence(values, _AUTO * len(values))
        key = statement, adapt.types or ()
        ready = self._ready.get(key)
        if ready is None or not ready.left:
            ready = self._prepare(ready, key, query)
        ready.left -= 1
        result = self.pgconn.exec_prepared(ready.name, dumped, adapt.formats, _BINARY)
        if result.status != _TUPLES_OK:
            self._done(result)
            return []
        adapt.set_pgresult(result)
        return adapt.load_rows(0, result.ntuples, tuple)

    def _prepare(
        self, ready: _Ready | None, key: tuple[str, tuple[int, ...]], query: bytes
    ) -> _Ready:
        """Make a statement ready. After 16, 256, 4,096, … uses it is made so anew: the server keeps
        a plan until it hears of a table's growth, and until then goes through all of a table that
        was empty when it planned."""
        times = _AGAIN
        if ready is not None:
            times *= ready.times
            del self._ready[key]
            self._done(self.pgconn.exec_(b"DEALLOCATE " + ready.name))
        name = b"ready%d" % next(self._names)
        self._done(self.pgconn.prepare(name, query, key[1]))
        self._ready[key] = made = _Ready(name, times)
        return made

    def _first(self, statement: str, given: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
        """The same as the first of a transaction, which psycopg begins as it is set to."""
        if self.isolation_level is None:
            self._done(self.pgconn.exec_(b"BEGIN"))
            return self.rows(statement, given)
        with self.cursor(binary=True) as cursor:
            return cursor.execute(statement, given).fetchall()

    def each_alone(self, is_so: bool) -> None:
        """Whether each statement from now on is a transaction of its own; to be called between
        transactions. What the setter of `autocommit` does, without its lock and questions."""
        self._autocommit = is_so

    def commit(self) -> None:
        """Commit, if anything was begun."""
        if self.pgconn.transaction_status != _IDLE:
            self._done(self.pgconn.exec_(b"COMMIT"))

    def rollback(self) -> None:
        """Roll back, if anything was begun; what is prepared stays so."""
        if self.pgconn.transaction_status != _IDLE:
            self._done(self.pgconn.exec_(b"ROLLBACK"))

    def _done(self, result: PGresult) -> None:
        if result.status == _COMMAND_OK:
            return
        if result.error_field(DiagnosticField.SQLSTATE) is None:  # from libpq: nobody is there
            raise psycopg.OperationalError(result.get_error_message())
        raise error_from_result(result)


@event.listens_for(Engine, "do_connect")
def _open(_: object, __: object, args: Sequence[Any], given: Mapping[str, Any]) -> Lean:
    return Lean.connect(*args, **given)


@lru_cache(maxsize=1024)
def _numbered(statement: str) -> tuple[bytes, tuple[str, ...]]:
    """A statement with $1, $2, … for its parameters, and the names that stand behind them."""
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        return f"${names.setdefault(found[1] or str(len(names)), len(names) + 1)}"

    query = re.sub(r"%(?:\((\w+)\)s|s|%)", number, statement)
    return query.encode(), tuple(names)
