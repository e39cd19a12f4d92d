"""Stage 6 of `credit`: what counts twice, what is not plausible, and what caps leave."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from app.flows.fingerprint import fingerprint
from app.flows.item import Credited, Item, refuse
from app.store import acts, usage
from app.vault import Vault
from scenarios import Key, Rejected, Version, claim, needs

_SAME_ACT = (
    "another provider reported the same act: it began at nearly the same time and not at another"
    " place; nothing is lost, since it counts once"
)


def limit(
    tx: Connection, vault: Vault, provider: str, items: list[Item], result: Credited
) -> list[Item]:
    """Stage 6. Counters are locked, read, and left as they then stand."""
    wanted: dict[str, dict[Key, None]] = {}
    for item in items:
        item.counters = needs(item.version, item.activity)
        if item.counters:
            asked = wanted.setdefault(item.who.resident, {})
            for key in item.counters:
                asked[key] = None
    usage.lock(tx, lock_names({id(item.version): item.version for item in items}.values()))
    items = _drop_same_acts(tx, vault, provider, items, result)
    counted = usage.read(tx, wanted)
    known = {resident: frozenset(own) for resident, own in counted.items()}
    changed: dict[str, set[Key]] = {}
    granted = []
    for item in items:
        resident = item.who.resident
        own = counted.setdefault(resident, {})
        try:
            item.granted = claim(item.version, item.activity, item.reduction.mg, item.counters, own)
        except Rejected as error:
            refuse(result, item, error.code, error.detail)
            continue
        granted.append(item)
        if item.granted.changed:
            own.update(item.granted.changed)
            changed.setdefault(resident, set()).update(item.granted.changed)
    usage.store(tx, counted, changed, known)
    return granted


def lock_names(versions: Iterable[Version]) -> set[str]:
    """What to lock before counting under these editions: every scenario whose counters are read,
    since editions of one scenario may differ in their group, and the kinds of physical act."""
    names: set[str] = set()
    for version in versions:
        if version.periods:
            names.update(version.group.members if version.group else (version.scenario,))
        if version.act:
            names.add(f"act {version.act.kind}")
    return names


def _drop_same_acts(
    tx: Connection, vault: Vault, provider: str, items: list[Item], result: Credited
) -> list[Item]:
    """Refuse what another provider's credited act was; under the lock, so that it stays so."""
    marks: set[bytes] = set()
    for item in items:
        place, who = item.document.place, item.who.resident
        item.act = fingerprint(vault, who, item.version, item.activity, place)
        if item.act:
            marks |= {item.act.cell, item.act.neighbour}
    held = acts.held(tx, provider, marks) if marks else {}
    if not held:
        return items
    left = []
    for item in items:
        act = item.act
        places = (*held.get(act.cell, ()), *held.get(act.neighbour, ())) if act else ()
        if act and any(act.meets(place) for place in places):
            refuse(result, item, "SAME_ACT", _SAME_ACT)
        else:
            left.append(item)
    return left
