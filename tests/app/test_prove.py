"""A receipt holds however far the log has grown since nodes of it were kept."""

from __future__ import annotations

import json
from secrets import token_hex

import pytest

from app.flows import prove
from app.flows.prove import NotSealedYetError, UnknownEntryError
from app.store import budgets, entries
from app.store.db import one_statement
from ledger import proof
from ledger.entries import instant
from ledger.transfers import adjust

BUCKET = 20271231


@pytest.fixture
def write(city):
    """Writes so many small entries of one resident; their ids."""

    def make(resident: str, count: int) -> list[str]:
        with city.engine.begin() as tx:
            made = [
                adjust(
                    id=token_hex(16),
                    at=instant(city.clock()),
                    resident=resident,
                    budget=budgets.scopes(tx)["*"],
                    points=1,
                    bucket=BUCKET,
                    reason="a test",
                )
                for _ in range(count)
            ]
            entries.append(tx, made)
        return [entry.id for entry in made]

    return make


def holds(city, name: str, resident: str) -> int:
    """The size of the log that the entry's receipt is proved in."""
    with one_statement(city.engine) as tx:
        receipt = prove.receipt(tx, name, resident)
    assert receipt.extra is not None
    assert json.loads(receipt.extra)["id"] == name
    verifiers = city.vault.ring.verifiers
    return proof.verify(receipt, receipt.extra, verifiers, city.config.log_origin).size


def test_every_receipt_holds_under_the_newest_checkpoint_as_the_log_grows(city, rider, write):
    written: list[str] = []
    sizes = []
    for count in (1, 200, 60, 255, 300, 1, 700):  # across tiles, and to their very ends
        written += write(rider, count)
        city.clock.move(seconds=1)
        city.sealer.seal(city.clock())
        asked = {*written[::41], *written[:2], *written[-3:]}
        (size,) = {holds(city, name, rider) for name in asked}
        sizes.append(size)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] > 1500


def test_what_is_not_sealed_is_told_apart_from_what_is_not_ones_own(city, rider, write):
    (name,) = write(rider, 1)
    with one_statement(city.engine) as tx:
        with pytest.raises(NotSealedYetError):
            prove.receipt(tx, name, rider)
        for who in ("ff" * 16, ""):
            with pytest.raises(UnknownEntryError):
                prove.receipt(tx, name, who)
        with pytest.raises(UnknownEntryError):
            prove.receipt(tx, "ff" * 16, rider)
    city.sealer.seal(city.clock())
    assert holds(city, name, rider) > 1
