"""An audit that goes on from a state ends where one in full does, and is not led astray."""

import json
import random
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ledger import ids, transfers
from ledger.audit import Report, audit
from ledger.entries import Entry, Kind
from ledger.export import Fault
from ledger.state import load

Write = Callable[..., Path]
MakeTown = Callable[..., Any]
GONE = "8" * 32


def payloads(entries: list[Entry]) -> list[bytes]:
    return [entry.payload() for entry in entries]


def fault(directory: Path, **options: Any) -> Fault:
    with pytest.raises(Fault) as caught:
        audit(directory, **options)
    return caught.value


def said(report: Report) -> tuple[Any, ...]:
    return report.head, report.kinds, report.balances, report.versions, report.merchants


@pytest.mark.parametrize("seed", range(2))
def test_in_steps_as_in_full(
    make_town: MakeTown,
    write_export: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    monkeypatch.setattr(ids, "SPILL", 400)
    town = make_town(seed).live(700)
    town.take(town.issue(GONE, 3))
    town.take(transfers.erase_subject(**town.stamp(), resident=GONE))
    town.live(200)
    state, whole = tmp_path / "state", tmp_path / "whole"
    draw = random.Random(seed)
    stops = sorted({256, *draw.sample(range(2, len(town.entries)), 2), len(town.entries)})
    before = None
    for stop in (*stops, stops[-1]):
        trail = [record for record in town.trail if record["index"] < stop]
        part = write_export(payloads(town.entries[:stop]), trail=trail, name=f"to{stop}")
        report = audit(part, state=state)
        assert (report.head.size, report.resumed) == (stop, before)
        before = stop
    full = audit(part, state=whole)
    assert said(report) == said(full)
    one, other = (json.loads(file.read_bytes().split(b"\n")[2]) for file in (state, whole))
    assert one == other
    assert sorted(state.read_bytes().split(b"\n")[3 : 3 + one["balances"]]) == sorted(
        whole.read_bytes().split(b"\n")[3 : 3 + one["balances"]]
    )
    assert sha256(b"".join(state.read_bytes().split(b"\n", 2)[2:])).hexdigest() == report.digest


def test_what_was_audited_is_not_read_again_but_proved_where_it_is_needed(
    make_town: MakeTown, write_export: Write, tmp_path: Path
) -> None:
    town = make_town(1).live(600)
    state = tmp_path / "state"
    audit(write_export(payloads(town.entries), name="old"), state=state)
    issue = town.take(town.issue("1" * 32, 3))
    audit(write_export(payloads(town.entries), name="older"), state=state)
    for _ in range(300):
        town.take(town.issue("1" * 32, 3))
    new = write_export(payloads(town.entries), name="new")
    bundle = new / "tile/entries/000"
    sound = bundle.read_bytes()
    bundle.write_bytes(b"nothing to read")
    assert audit(new, state=tmp_path / "state").resumed == len(town.entries) - 300
    bundle.write_bytes(sound)
    town.take(town.reverse(issue))
    last = write_export(payloads(town.entries), name="last")
    leaf = town.entries.index(issue)
    bundle = last / f"tile/entries/{leaf // 256:03}"
    sound = bundle.read_bytes()
    bundle.write_bytes(sound.replace(issue.id.encode(), issue.id.encode()[::-1]))
    found = fault(last, state=state)
    assert f"leaf {leaf}: " in str(found)
    bundle.write_bytes(sound)
    assert audit(last, state=state).kinds[Kind.REVERSE]


def test_a_fork_an_older_log_and_another_log_are_refused(
    make_town: MakeTown, write_export: Write, tmp_path: Path, log_key: Any
) -> None:
    town = make_town(1).live(400)
    state = tmp_path / "state"
    audit(write_export(payloads(town.entries), name="old"), state=state)
    kept = state.read_bytes()
    older = write_export(payloads(town.entries[:300]), name="older")
    fork = make_town(2).live(500)
    forked = write_export(payloads(fork.entries), name="forked")
    rewritten = [*town.entries[:-1], *fork.entries[2:]]
    shifted = write_export(payloads(rewritten), name="shifted")
    key = type(log_key).generate("another.test.example/log")
    other = write_export(payloads(town.live(100).entries), name="other", signers=(key,))
    for directory in (older, forked, shifted, other):
        found = fault(directory, state=state)
        assert (found.where, state.read_bytes()) == (str(state), kept)
        assert "402 entries audited before" in found.what


def test_an_id_used_again_after_the_state_is_named(
    make_town: MakeTown, write_export: Write, tmp_path: Path
) -> None:
    town = make_town(1).live(300)
    state = tmp_path / "state"
    audit(write_export(payloads(town.entries), name="old"), state=state)
    issue = next(entry for entry in town.entries if entry.kind is Kind.ISSUE)
    again = write_export(payloads([*town.entries, issue]), name="again")
    assert fault(again, state=state).leaf == len(town.entries)


def test_a_state_changed_anywhere_or_of_another_form_is_named(
    make_town: MakeTown, write_export: Write, tmp_path: Path
) -> None:
    town = make_town(1).live(300)
    export, state = write_export(payloads(town.entries)), tmp_path / "state"
    audit(export, state=state)
    kept = state.read_bytes()
    for at in {0, 30, 90, len(kept) // 2, len(kept) - 1}:
        state.write_bytes(kept[:at] + bytes([kept[at] ^ 1]) + kept[at + 1 :])
        assert fault(export, state=state).where == str(state)
    body = b'{"size":1}\n'
    form = kept.split(b"\n")[0]
    for wrong in (b"", body, form + b"\n" + sha256(body).hexdigest().encode() + b"\n" + body):
        state.write_bytes(wrong)
        assert fault(export, state=state).where == str(state)
    assert fault(export, state=tmp_path).where == str(tmp_path)
    assert fault(export, state=tmp_path / "no" / "where").where.endswith("where")


def test_a_state_is_written_only_if_everything_held(
    make_town: MakeTown, write_export: Write, tmp_path: Path
) -> None:
    town = make_town(1).live(300)
    export, state = write_export(payloads(town.entries), versions={}), tmp_path / "state"
    assert "scenarios/" in fault(export, state=state).where
    assert not state.exists()
    audit(write_export(payloads(town.entries)), state=state)
    held = load(state)
    held.ids.close()
    assert dict(held.book.balances()) == dict(town.book.balances())
    assert held.book.debt("1" * 32) == town.book.debt("1" * 32)
