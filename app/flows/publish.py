"""Publish and withdraw scenario versions: registry and ledger entries, always in one commit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from secrets import token_hex

from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE, NOTICE_DAYS
from app.flows import own
from app.store import budgets, catalogue, entries
from app.vault import Vault
from ledger.entries import instant
from ledger.errors import Refused
from ledger.transfers import publish_scenario, withdraw_scenario
from scenarios import Catalogue, Version


class PublishedVersionChangedError(Exception):
    """A version that was published has other content now; published versions are never edited."""

    code = "PUBLISHED_VERSION_CHANGED"


class NoticeError(Exception):
    """A version would take effect before those it concerns had the time to read it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class WithdrawalTooLateError(Exception):
    """A version is in effect, or so nearly that a batch under way may go by it already."""

    code = "WITHDRAWAL_TOO_LATE"


def check_notice(first_day: date, now: datetime, notice_days: int) -> None:
    """Raise NoticeError EFFECT_IN_PAST or NOTICE_TOO_SHORT unless `first_day` is late enough.

    Between today and the first day lie `notice_days` whole days, so with 0 it is tomorrow.
    """
    today = now.astimezone(CITY_ZONE).date()
    earliest = today + timedelta(days=notice_days + 1)
    if first_day <= today:
        raise NoticeError(
            "EFFECT_IN_PAST",
            f"{first_day} is not after today, and what was credited stays credited;"
            f" the earliest day is {earliest}",
        )
    if first_day < earliest:
        raise NoticeError(
            "NOTICE_TOO_SHORT",
            f"{first_day} leaves less than the {notice_days} days of notice;"
            f" the earliest day is {earliest}",
        )


def record(
    tx: Connection,
    vault: Vault,
    versions: Sequence[Version],
    now: datetime,
    draft: str | None = None,
) -> None:
    """Put versions into the registry and their entries into the ledger, with their draft's id."""
    catalogue.put(tx, versions, now, draft)
    entries.append(
        tx,
        [
            publish_scenario(
                id=published_id(vault, one.scenario, one.number),
                at=instant(now),
                scenario=one.scenario,
                version=one.number,
                digest=one.digest,
                effective_from=str(one.effective_from),
            )
            for one in versions
        ],
    )


def retract(tx: Connection, vault: Vault, versions: Sequence[Version], now: datetime) -> None:
    """Take versions back that nobody was ever credited by. Raises WithdrawalTooLateError."""
    try:
        made = [
            withdraw_scenario(
                id=withdrawn_id(vault, one.scenario, one.number),
                at=instant(now),
                scenario=one.scenario,
                version=one.number,
                digest=one.digest,
                effective_from=str(one.effective_from),
            )
            for one in versions
        ]
    except Refused as error:
        raise WithdrawalTooLateError(str(error)) from error
    catalogue.withdraw(tx, [(one.scenario, one.number) for one in versions], now)
    entries.append(tx, made)


def published_id(vault: Vault, scenario: str, number: int) -> str:
    """The id of the entry that published a version."""
    return vault.entry_id("publish", f"{scenario}\0{number}")


def withdrawn_id(vault: Vault, scenario: str, number: int) -> str:
    """The id of the entry that withdrew a version."""
    return vault.entry_id("withdraw", f"{scenario}\0{number}")


def publish(
    engine: Engine,
    vault: Vault,
    editions: Catalogue,
    now: datetime,
    notice_days: int = NOTICE_DAYS,
) -> int:
    """Publish every version of the files that is not yet; return how many.

    First editions may begin on any day, later ones obey the notice. Also makes the general budget,
    so that every scenario has a payer, funded or not, and the sources of our own. Raises
    NoticeError, PublishedVersionChangedError, and Fault if they do not fit what is published.
    """
    with engine.begin() as tx:
        catalogue.take_turn(tx)
        new = _unpublished(catalogue.digests(tx), editions)
        for version in new:
            if version.number > 1:
                check_notice(version.effective_from, now, notice_days)
        catalogue.Registry().current(tx).amended(new)
        record(tx, vault, new, now)
        budgets.create(tx, token_hex(16), "general", budgets.ANY_SCOPE, now)
        own.register(tx, now)
        return len(new)


def _unpublished(known: dict[tuple[str, int], str], editions: Catalogue) -> list[Version]:
    new = []
    for scenario in editions.scenarios:
        for version in editions.versions(scenario):
            digest = known.get((scenario, version.number))
            if digest is None:
                new.append(version)
            elif digest != version.digest:
                raise PublishedVersionChangedError(
                    f"{scenario} version {version.number} was published with other content;"
                    " undo the edit and add a new version"
                )
    return new
