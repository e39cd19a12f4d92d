"""More than the city can take: slow senders, and providers that flood; readers do not notice."""

from __future__ import annotations

import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event
from urllib.parse import urlsplit

import pytest

from app.cli.client import ProviderClient
from app.clock import utc_now
from app.door import BATCHES_WAITING, BODY_S
from app.flows.enroll import enroll
from app.store.catalogue import Registry

SLOW = 100
SENDERS = 3 * (1 + BATCHES_WAITING)
EACH = 2  # batches a sender
ACTS = 150  # a batch


@pytest.fixture(scope="module")
def bikes(still_town):
    return still_town.provider("pressed-bikes")


@pytest.fixture(scope="module")
def rider(still_town, bikes):
    return still_town.resident(bikes, "reader")


def test_a_hundred_slow_senders_hold_up_nobody(still_town, rider):
    parts = urlsplit(str(still_town.http.base_url))
    links = [socket.create_connection((parts.hostname, parts.port)) for _ in range(SLOW)]
    try:
        for link in links:
            link.sendall(
                b"POST /api/v1/batches HTTP/1.1\r\nHost: here\r\nContent-Length: 100000\r\n\r\n{"
            )
        for link in links:
            link.sendall(b" ")
        began = time.monotonic()
        for _ in range(20):
            rider.get("balances")
        assert time.monotonic() - began < BODY_S  # else they wait for as long as the slow ones may
    finally:
        for link in links:
            link.close()


def test_a_body_larger_than_any_is_refused_whether_it_says_so_or_not(still_town):
    def chunks():
        for _ in range(9):
            yield b" " * 1024 * 1024

    answer = still_town.http.post("/api/v1/batches", content=chunks())
    assert (answer.status_code, answer.json()["code"]) == (413, "BODY_TOO_LARGE")


class Waits:
    """Sleeps as long as it is told, and remembers it."""

    def __init__(self):
        self.told = []

    def __call__(self, seconds):
        self.told.append(seconds)
        time.sleep(seconds)


def test_a_flood_is_told_when_to_come_again_and_nothing_is_lost(still_town, bikes, rider):
    subjects = [f"pressed-{n}" for n in range(50)]
    parts = (still_town.engine, still_town.vault, Registry(), bikes.code, subjects)
    enroll(*parts, "140403", utc_now())
    done = (utc_now() - timedelta(days=1)).isoformat(timespec="seconds")
    url, over = str(still_town.http.base_url), Event()

    def flood(sender):
        waits, counts = Waits(), []
        with ProviderClient(url, bikes.key_id, bikes.key, sleep=waits) as client:
            for n in range(EACH):
                acts = [
                    {
                        "id": f"pressed-{sender}-{n}-{k}",
                        "subject": subjects[k % len(subjects)],
                        "scenario": "travel.bike_shared",
                        "occurred_at": done,
                        "quantities": {"distance_km": "1.5"},
                    }
                    for k in range(ACTS)
                ]
                counts.append(client.send_batch(f"pressed-{sender}-{n}", acts)["counts"])
        return waits.told, counts

    def read():
        answered = 0
        while not over.wait(0.2):  # well within what one resident may ask in a minute
            rider.get("balances")
            answered += 1
        return answered

    with ThreadPoolExecutor(SENDERS + 1) as pool:
        reading = pool.submit(read)
        sent = list(pool.map(flood, range(SENDERS)))
        over.set()
        answered = reading.result()
    accepted = sum(one["accepted"] for _, counts in sent for one in counts)
    assert accepted == SENDERS * EACH * ACTS
    refused = re.search(
        r'puhui_refused_total\{reason="CITY_BUSY"\} (\d+)', still_town.http.get("/metrics").text
    )
    assert refused
    assert int(refused[1]) == sum(len(told) for told, _ in sent) > 0
    assert answered > 0
