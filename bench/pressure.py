"""Residents' reads while providers flood the city: the slowest, beside how slow they are alone.

Twice as many connections as there are places for batches send as fast as they are let, and come
again when they are told. Meanwhile residents read their balances, a steady number a second. A first
flood gives them something to read, and the planner statistics of it.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count, cycle
from secrets import token_hex
from statistics import median, quantiles
from threading import Event
from typing import Any

import orjson

from app.cli.client import ProviderClient, ProviderError, read_private_key
from app.cli.local import running
from app.cores import but_one
from app.door import BATCHES_WAITING
from app.flows.tokens import issue_access_token
from bench.load import connected, exchange, get
from bench.stage import BATCH, Provider, Result, Stage, activities, analyze

WORKERS = 2
CONNECTIONS = 2 * WORKERS * (1 + BATCHES_WAITING)
SECONDS = 8.0
ROUNDS = 5
PAUSE_S = 0.01  # between two reads
_MARK = "number"


def measure(stage: Stage) -> list[Result]:
    """The 99th percentile of a read beside a flood, in microseconds; the floor is that alone."""
    now = datetime.now(UTC)
    with running(stage.config, workers=WORKERS) as url:
        reads = [
            get(
                f"{url}/api/v1/me/balances",
                Authorization=f"Bearer {issue_access_token(stage.vault.token, one, now)}",
            )
            for one in stage.residents[:500]
        ]
        _round(stage, url, reads)
        while stage.sealer.seal(stage.now()):
            pass
        analyze(stage.config)
        alone, beside = zip(*(_round(stage, url, reads) for _ in range(ROUNDS)), strict=True)
    floor, value = median(alone), median(beside)
    return [Result("read beside a flood, p99", value, "µs", floor, value / floor)]


def _round(stage: Stage, url: str, reads: list[bytes]) -> tuple[float, float]:
    """The 99th percentiles, alone and beside a flood. Reads do not end in between: a batch that
    began while nobody read has all cores until it ends, and a city's residents never all pause."""
    with reading(url, cycle(reads)) as taken:
        time.sleep(SECONDS)
        alone = len(taken)
        with flooding(stage, url):
            before = len(taken)
            time.sleep(SECONDS)
            beside = taken[before:]
    return _p99(taken[:alone]), _p99(beside)


def _p99(seconds: list[float]) -> float:
    """In microseconds."""
    return quantiles(seconds, n=100)[98] * 1e6


@contextmanager
def reading(url: str, requests: Iterable[bytes]) -> Iterator[list[float]]:
    """One reader, who pauses between two, for as long as this lasts; the seconds of each request
    answered so far."""
    taken: list[float] = []
    over = Event()

    def read() -> None:
        with connected(url) as link:
            for request in requests:
                began = time.perf_counter()
                exchange(link, request)
                taken.append(time.perf_counter() - began)
                if over.wait(PAUSE_S):
                    return

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            yield taken
        finally:
            over.set()
        reader.result()


@contextmanager
def flooding(stage: Stage, url: str) -> Iterator[None]:
    """Providers send over all these connections for as long as this lasts."""
    context = multiprocessing.get_context("spawn")
    over, begun = context.Event(), context.Barrier(len(stage.providers) + 1)
    senders = [
        context.Process(target=_flood, args=(url, provider, begun, over))
        for provider in stage.providers
    ]
    for sender in senders:
        sender.start()
    begun.wait()
    time.sleep(1)  # until all places are taken
    try:
        yield
    finally:
        over.set()
        for sender in senders:
            sender.join()


def _flood(url: str, provider: Provider, begun: Any, over: Any) -> None:
    """A provider's connections, who have a machine of their own in truth: the bodies are ready, and
    what is left to do here takes no core that readers want."""
    os.sched_setaffinity(0, but_one())
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    key = read_private_key(provider.key.read_bytes())
    acts = activities(provider, 0, BATCH, seed=1)
    for one in acts:
        one["id"] = f"{one['id']}-{_MARK}"
    body = orjson.dumps({"batch_id": f"flood-{_MARK}", "activities": acts})
    flood, numbers = token_hex(4), count()

    def send() -> None:
        with ProviderClient(url, provider.key_id, key, sleep=over.wait) as client:
            while not over.is_set():
                try:
                    client.send_body(
                        body.replace(_MARK.encode(), f"{flood}-{next(numbers)}".encode())
                    )
                except ProviderError as error:
                    if error.code != "CITY_BUSY":  # the client's patience is over, ours is not
                        raise

    begun.wait()
    with ThreadPoolExecutor(CONNECTIONS // 2) as pool:
        for sent in [pool.submit(send) for _ in range(CONNECTIONS // 2)]:
            sent.result()
