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
    wanted: dict[Key, set[bytes]] = {}
    keys: dict[tuple[int, int], tuple[Key, ...]] = {}  # by edition and day: many acts share them
    for item in items:
        version, account = item.version, item.who.account
        shared = id(version), item.activity.day
        own = keys.get(shared)
        if own is None:
            own = keys[shared] = needs(version, item.activity)
            wanted |= {key: set() for key in own if key not in wanted}
        item.counters = own
        for key in own:
            wanted[key].add(account)
    usage.lock(tx, lock_names({id(item.version): item.version for item in items}.values()))
    items = _drop_same_acts(tx, vault, provider, items, result)
    counted = usage.read(tx, wanted)
    changed: dict[usage.Counter, bool] = {}  # and whether it was ever counted before
    granted = []
    for item in items:
        account = item.who.account
        stand = counted.get(account)
        if stand is None:
            stand = counted[account] = {}
        try:
            made = claim(item.version, item.activity, item.mg, item.counters, stand)
        except Rejected as error:
            refuse(result, item, error.code, error.detail)
            continue
        item.granted = made
        granted.append(item)
        for key, used in made.changed.items():
            changed.setdefault((account, key), key in stand)
            stand[key] = used
    usage.store(tx, counted, changed)
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
        if item.version.act is None:
            continue
        place, who = item.document.place, item.who.resident
        item.act = act = fingerprint(vault, who, item.version, item.activity, place)
        if act:
            marks.add(act.cell)
            marks.add(act.neighbour)
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
