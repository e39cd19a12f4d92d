"""Ingestion over HTTP against a floor that COPYs the very same rows and does nothing else.

Two providers, of two areas and with customers of their own, each send signed batches of 5,000 over
two connections to a web process that has four batches worked on at once, while the sealer runs.
The rows that a round wrote are read back and written again by plain psycopg: binary COPY into
tables of the same shape and indexes, which grow from round to round as ours do, one commit a batch,
one connection. The floor has no signature, JSON, rules, keys, or conflicts. All take turns, since a
machine's disk has its moods; of each the median round counts.
"""

from __future__ import annotations

import multiprocessing
import socket
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from statistics import median
from typing import Any

import orjson
import psycopg

from app.cli.client import read_private_key
from app.cli.local import running
from app.signature import Received, sign
from bench.load import connected, exchange, post
from bench.stage import BATCH, Provider, Result, Stage, activities, copy_shape

CONNECTIONS = 2  # a provider
CONNECTION = 12  # batches over each
BATCHES = CONNECTIONS * CONNECTION
INTAKE = 4  # batches at work at once: one for each connection
_ROUNDS = 3
_UNSEALED_S = 2  # no entry waits longer for the sealer, as is promised
_PATH = "/api/v1/batches"
_WARM = 1  # of each connection's batches: not counted

# What a batch writes: each table with its columns' types.
_TABLES = {
    "entries": "int8 bytea text bytea",
    "postings": "int8 int8 bytea int4 int2 int2",
    "outbox": "int8 int4 bytea",
    "openings": "int8 bytea bytea",
    "balances": "bytea int2 int2 int4 int8",
    "usage": "bytea text int4 int4 int8 int8",
    "acts": "bytea int8 text bytea",
}
_NEW = """
SELECT arrival FROM entries
WHERE kind = 'issue' AND arrival > (SELECT coalesce(max(arrival), 0) FROM floor_entries)
ORDER BY arrival"""
_UNSEALED = "SELECT min(arrival), max(arrival + count) - 1 FROM outbox"


def measure(stage: Stage) -> list[Result]:
    """Activities a second of two providers, of one, and of the floor; how far sealing fell behind
    both, beside what is promised."""
    rates: dict[str, list[float]] = {"both": [], "one": [], "floor": []}
    waits, numbers = [], count(0, BATCHES * BATCH)
    with running(replace(stage.config, intake=INTAKE)) as url:
        for _ in range(_ROUNDS):
            with watching(stage) as unsealed_s:
                rates["both"].append(send(stage, url, stage.providers, next(numbers)))
            waits.append(max(unsealed_s))
            rates["one"].append(send(stage, url, stage.providers[:1], next(numbers)))
            while stage.sealer.seal(stage.now()):
                pass
            with psycopg.connect(_owner(stage)) as connection:
                rates["floor"].append(_floor(connection))
    both, one, floor = (median(some) for some in rates.values())
    unsealed = max(waits)
    return [
        Result("ingest over HTTP, 2 providers", both, "activities/s", floor, both / floor),
        Result("ingest over HTTP, 1 provider", one, "activities/s", floor, one / floor),
        Result("ingest, 2 providers to 1", both, "activities/s", one, both / one),
        Result(
            "oldest unsealed, at full load",
            1000 * unsealed,
            "ms",
            1000 * _UNSEALED_S,
            unsealed / _UNSEALED_S,
        ),
    ]


@contextmanager
def watching(stage: Stage) -> Iterator[list[float]]:
    """Every 50 ms, how long the oldest entry that is not sealed has waited, in seconds.

    It came no later than the first look that found an entry of its number or a later one; one that
    was written beside it and committed later counts as older than it is.
    """
    waited, over = [0.0], threading.Event()
    newest: list[int] = []  # the greatest arrival number at each look
    looks: list[float] = []

    def look() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not over.wait(0.05):
                row = connection.execute(_UNSEALED).fetchone()
                if row is None or row[0] is None:
                    continue
                looks.append(time.perf_counter())
                newest.append(max(row[1], newest[-1] if newest else 0))
                waited.append(looks[-1] - looks[bisect_left(newest, row[0])])

    dsn = _owner(stage)
    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield waited
    finally:
        over.set()
        watcher.join()


def send(stage: Stage, url: str, senders: tuple[Provider, ...], first: int) -> float:
    """Activities a second: each connection in a process of its own, with its bodies ready before
    the common start."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(senders) * CONNECTIONS + 1)
    done: Any = context.Queue()
    processes = [
        context.Process(target=_provider, args=(url, provider, first + half, barrier, done))
        for provider in senders
        for half in range(0, BATCHES * BATCH, CONNECTION * BATCH)
    ]
    for process in processes:
        process.start()
    barrier.wait()
    started = time.perf_counter()
    accepted = sum(done.get() for _ in processes)
    seconds = time.perf_counter() - started
    barrier.wait()
    for process in processes:
        process.join()
    expected = (CONNECTION - _WARM) * BATCH * CONNECTIONS * len(senders)
    if accepted != expected:
        raise RuntimeError(f"{accepted} of {expected} activities were accepted")
    return expected / seconds


@contextmanager
def reporting(stage: Stage, url: str) -> Iterator[None]:
    """Both providers report at full speed, batch after batch, for as long as this lasts."""
    context = multiprocessing.get_context("spawn")
    over = context.Event()
    begun = context.Barrier(len(stage.providers) * CONNECTIONS + 1)
    processes = [
        context.Process(target=_report, args=(url, provider, connection, begun, over))
        for provider in stage.providers
        for connection in range(CONNECTIONS)
    ]
    for process in processes:
        process.start()
    begun.wait()
    try:
        yield
    finally:
        over.set()
        for process in processes:
            process.join()


def _report(url: str, provider: Provider, connection: int, begun: Any, over: Any) -> None:
    key, first = read_private_key(provider.key.read_bytes()), 10**6 * (1 + connection)
    with connected(url) as link:
        for n in count():
            start = first + n * BATCH
            acts = activities(provider, start, BATCH, seed=start)
            document = {"batch_id": f"{provider.code}-{start}", "activities": acts}
            post_batch(link, url, provider, key, orjson.dumps(document))
            if n == 0:
                begun.wait()
            if over.is_set():
                return


def _provider(url: str, provider: Provider, first: int, barrier: Any, done: Any) -> None:
    key = read_private_key(provider.key.read_bytes())
    bodies = []
    for n in range(CONNECTION):
        start = first + n * BATCH
        batch_id = f"{provider.code}-{start}"
        acts = activities(provider, start, BATCH, seed=start)
        bodies.append(orjson.dumps({"batch_id": batch_id, "activities": acts}))
    accepted = 0
    with connected(url) as link:
        for n, body in enumerate(bodies):
            if n == _WARM:
                barrier.wait()
                accepted = 0
            accepted += post_batch(link, url, provider, key, body)
    done.put(accepted)
    barrier.wait()  # who ends earlier would take the others' time for it


def post_batch(link: socket.socket, url: str, provider: Provider, key: Any, body: bytes) -> int:
    """How many activities of a batch were accepted."""
    signed, nonce = Received("POST", _PATH, body), f"{provider.code}-{time.time_ns()}"
    header = sign(key, provider.key_id, signed, int(time.time()), nonce)
    receipt = exchange(link, post(url + _PATH, body, Authorization=header))
    return int(orjson.loads(receipt)["counts"]["accepted"])


def _owner(stage: Stage) -> str:
    assert stage.config.owner_url
    return stage.config.owner_url.replace("+psycopg", "")


def _floor(connection: psycopg.Connection[Any]) -> float:
    """Activities a second of the rows that came since the last time, COPYed batch by batch. All of
    them are read before, which takes a gigabyte or two."""
    copy_shape(connection, "floor", _TABLES)
    new = [arrival for (arrival,) in connection.execute(_NEW)]
    batches = [
        _rows(connection, some[0], some[-1])
        for some in (new[first : first + BATCH] for first in range(0, len(new), BATCH))
    ]
    connection.commit()
    started = time.perf_counter()
    for batch in batches:
        for table, rows in batch.items():
            with connection.cursor().copy(f"COPY floor_{table} FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(_TABLES[table].split())
                for row in rows:
                    copy.write_row(row)
        connection.commit()
    return len(new) / (time.perf_counter() - started)


def _rows(connection: psycopg.Connection[Any], first: int, last: int) -> dict[str, list[Any]]:
    """The rows of a batch of entries, as they stand in the tables, grouped as intake wrote them.

    Changed rows (balances, usage) count as one row written for each change: two balances and one
    counter an activity, keyed apart so that the copy meets no conflict.
    """
    batch: dict[str, list[Any]] = {
        table: connection.execute(
            f"SELECT * FROM {table} WHERE arrival BETWEEN %s AND %s ORDER BY arrival", (first, last)
        ).fetchall()
        for table in ("entries", "postings", "openings", "acts")
    }
    count = len(batch["entries"])
    batch["outbox"] = [(first, count, bytes(32 * count))]
    wallets = [row for row in batch["postings"] if row[4] == 1]
    batch["balances"] = sorted((row[2], row[4], row[5], row[0] % 2**31, row[1]) for row in wallets)
    batch["usage"] = sorted(
        (row[2], "travel.bike_shared", row[0] % 2**31, 1, row[1], row[1])
        for row in wallets
        if row[5] == 1
    )
    return batch
