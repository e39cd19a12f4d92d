"""What a city's tables and indexes take on disk, and what of it is bloat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from rich.table import Table

from bench.life import City, console
from bench.stage import Result, Stage

_TABLES = """
SELECT c.relname, pg_relation_size(c.oid), coalesce(pg_total_relation_size(c.reltoastrelid), 0)
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'"""
_INDEXES = """
SELECT i.relname, t.relname, pg_relation_size(i.oid)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
WHERE t.relnamespace = 'public'::regnamespace"""
_SAID = """
SELECT (SELECT sum(octet_length(payload)) FROM entries)
  + (SELECT sum(octet_length(sealed)) FROM openings)"""
_DEAD = """
SELECT relname, n_live_tup, n_dead_tup FROM pg_stat_user_tables
WHERE n_dead_tup > 1000 ORDER BY n_dead_tup DESC"""


def sizes(city: City) -> list[Result]:
    """Bytes an activity in all, to those of payloads and openings; the parts go to the terminal,
    and what autovacuum has left so far."""
    with _owner(city.stage) as owner:
        dead = owner.execute(_DEAD).fetchall()
        lines = [(name, heap + toast) for name, heap, toast in owner.execute(_TABLES)]
        lines += [(f"  {name}, of {of}", size) for name, of, size in owner.execute(_INDEXES)]
        said = next(int(row[0]) for row in owner.execute(_SAID))
    table = Table("table, index", "bytes an activity", title=f"{city.lived:,} activities")
    for name, size in sorted(lines, key=lambda line: -line[1]):
        if size >= city.lived:
            table.add_row(name, f"{size / city.lived:,.1f}")
    console.print(table)
    table = Table("table", "living rows", "dead rows", title="not vacuumed yet")
    for name, living, gone in dead:
        table.add_row(name, f"{living:,}", f"{gone:,}")
    console.print(table)
    total, each = sum(size for _, size in lines), city.lived
    return [Result("bytes an activity", total / each, "B", said / each, total / said)]


def vacuum(made: Stage) -> None:
    """What autovacuum does within minutes."""
    with _owner(made) as owner:
        owner.execute("VACUUM ANALYZE")


def bloat(city: City) -> list[Result]:
    """All indexes to what they take once they are built anew, which is done here."""
    with _owner(city.stage) as owner:
        before = {name: size for name, _, size in owner.execute(_INDEXES)}
        owner.execute("REINDEX SCHEMA public")
        after = {name: size for name, _, size in owner.execute(_INDEXES)}
    each = city.lived
    table = Table("index", "bytes an activity", "built anew", title="bloat")
    for name, size in sorted(before.items(), key=lambda item: -item[1]):
        if size >= each:
            table.add_row(name, f"{size / each:,.1f}", f"{after[name] / each:,.1f}")
    console.print(table)
    now, new = sum(before.values()), sum(after.values())
    return [Result("indexes, aged", now / each, "B an activity", new / each, now / new)]


@contextmanager
def _owner(made: Stage) -> Iterator[psycopg.Connection[Any]]:
    assert made.config.owner_url
    dsn = made.config.owner_url.replace("+psycopg", "")
    with psycopg.connect(dsn, autocommit=True) as owner:
        yield owner
