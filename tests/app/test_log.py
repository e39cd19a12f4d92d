"""The keys of the public log over the years: an old receipt stays one that can be checked."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from app.api.log import TermsSchema
from app.application import create_app
from app.flows.prove import receipt
from app.flows.rotate import rotate_log_key
from app.flows.seal import Sealer
from app.store.db import snapshot
from app.vault import open_vault
from ledger.errors import LedgerError
from ledger.note import Verifier
from ledger.proof import Receipt, verify


class Log:
    """A city's log whose keys change; each call is made as by processes started anew."""

    def __init__(self, city, folder):
        self.city, self.folder = city, shutil.copytree(city.config.keys_dir, folder)

    def get(self, path):
        app = create_app(replace(self.city.config, keys_dir=self.folder), self.city.clock)
        try:
            return app.test_client().get(path)
        finally:
            with app.app_context():
                app.extensions["puhui"].engine.dispose()
            app.extensions["puhui"].redis.close()

    def rotate(self):
        vault = open_vault(self.folder)
        return rotate_log_key(self.city.engine, vault, self.folder, self.city.clock())

    def seal(self):
        sealer = Sealer(self.city.engine, open_vault(self.folder), self.city.config.head_file)
        return sealer.seal(self.city.clock())

    def retire(self, number):
        (self.folder / f"log-{number}.key").unlink()

    def terms(self):
        answer = self.get("/log/keys/history").json
        assert TermsSchema().validate(answer) == {}
        return [(one["since_size"], one["until_size"], one["in_force"]) for one in answer["items"]]


@pytest.fixture
def log(city, tmp_path):
    return Log(city, tmp_path / "keys")


def test_each_key_is_listed_with_the_sizes_between_which_the_log_was_its_own(log):
    assert log.terms() == [("0", None, True)]
    before = log.seal()
    log.rotate()
    assert log.terms() == [("0", None, True)]  # the handover is not in the log yet
    log.seal()
    size = str(before + 1)
    assert log.terms() == [(size, None, True), ("0", size, True)]
    log.retire(1)
    assert log.terms() == [(size, None, True), ("0", size, False)]
    log.rotate()
    log.seal()
    log.retire(2)
    third = str(before + 2)
    assert log.terms() == [(third, None, True), (size, third, False), ("0", size, False)]


def test_a_receipt_from_before_a_rotation_is_checked_with_a_key_of_the_history(log, city):
    size = log.seal()
    with snapshot(city.engine) as tx:
        entry = tx.exec_driver_sql("SELECT encode(id, 'hex') FROM entries LIMIT 1").scalar_one()
        kept = receipt(tx, entry).text()
    log.rotate()
    log.seal()
    log.retire(1)
    old = Receipt.parse(kept)
    today = [Verifier.parse(line) for line in log.get("/log/keys").text.splitlines()]
    with pytest.raises(LedgerError):
        verify(old, old.extra, today)
    ever = [one["key"] for one in log.get("/log/keys/history").json["items"]]
    assert verify(old, old.extra, [Verifier.parse(key) for key in ever]).size == size
