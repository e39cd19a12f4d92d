"""The worker's two loops: sealing waits for none of the chores, and neither outlives the other."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.flows.seal import SecondHistoryError
from app.flows.work import Worker
from app.store import log

PATIENCE_S = 20


@pytest.fixture(autouse=True)
def signals():
    """The worker takes these for itself."""
    names = (signal.SIGTERM, signal.SIGINT)
    kept = [signal.getsignal(name) for name in names]
    yield
    for name, handler in zip(names, kept, strict=True):
        signal.signal(name, handler)


@pytest.fixture
def worker(city):
    def made(also, sealer=city.sealer):
        return Worker(city.engine, city.vault, sealer, city.clock, also)

    return made


def test_sealing_waits_for_no_chore(city, worker, provider, rider, ride):
    assert provider.batch("b-1", ride(1)).status_code == 200
    busy, free, over = threading.Event(), threading.Event(), threading.Event()

    def chore():
        busy.set()
        assert free.wait(PATIENCE_S)

    def sealed():
        assert busy.wait(PATIENCE_S)
        try:
            while not over.wait(0.05):
                with city.engine.connect() as tx:
                    if log.head(tx).size:
                        return not free.is_set()
            return False
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            free.set()

    with ThreadPoolExecutor(1) as pool:
        looked = pool.submit(sealed)
        try:
            worker(chore).run()
        finally:
            over.set()
        assert looked.result()


def test_a_chore_that_fails_ends_the_worker(worker):
    def chore():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        worker(chore).run()


def test_sealing_that_is_refused_ends_the_worker(worker):
    class Refusing:
        def seal(self, _):
            raise SecondHistoryError("an older backup")

    with pytest.raises(SecondHistoryError):
        worker(lambda: None, Refusing()).run()
