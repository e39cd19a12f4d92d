"""What a backtest says, as JSON values: amounts are strings, counts are numbers, order is fixed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

from app.config import CITY_ZONE
from app.flows.backtest.tally import Sums, Tally, plus

SIDES = ("in_force", "draft")
_DECILES = 10
_MG_PER_KG = 1_000_000

NOTES = (
    "Acts that were refused in life are not kept, so the draft cannot let them in; how many were"
    " refused, and why, stands under rejected_in_life.",
    "Acts of people who were erased since are gone; they keep what was recorded, in both columns.",
    "Acts that were reversed inside the window took their place while they stood, and are not in"
    " the sums.",
    "An act that was credited was no second report of the same trip; that is not asked again.",
    "Whether points were paid at once or later, and what repaid a debt, is taken from life when"
    " expiry is reckoned; budgets pay who waits as soon as they have the money.",
    "A new cap by the month counts what was credited since the month began, not what was reported"
    " later than that for a month before.",
)


class Window(NamedTuple):
    """What was replayed: from the first day's beginning to `until`."""

    since: date
    until: datetime
    days: int
    acts: int
    refused: dict[str, int]


class Budget(NamedTuple):
    """One budget over the window. Pairs are the rules in force and the draft; `recorded` is what
    waits and what is left in the ledger, once who can be paid was paid."""

    scope: str
    opening: int
    funded: int
    needed: tuple[int, int]
    waiting: tuple[int, int]
    left: tuple[int, int]
    recorded: tuple[int, int]


def report(window: Window, tally: Tally, budgets: Sequence[Budget]) -> dict[str, Any]:
    """The result; the same ledger and rules give the same bytes."""
    by_scenario, by_day = _rolled(tally.worth, 0), _rolled(tally.worth, 1)
    total = _rolled(tally.worth, None)[""]
    return {
        "window": {
            "days": window.days,
            "from": window.since.isoformat(),
            "until": window.until.astimezone(CITY_ZONE).isoformat(timespec="seconds"),
            **{name: tally.counts[name][0] for name in ("acts", "residents", "reversed", "erased")},
        },
        "drift": _drift(tally, budgets),
        "total": _pair(total),
        "scenarios": [
            {"scenario": name, **_pair(by_scenario[name])} for name in sorted(by_scenario)
        ],
        "districts": [
            {"district": name or None, **_pair(tally.districts[name])}
            for name in sorted(tally.districts)
            if any(tally.districts[name])
        ],
        "days": [{"day": _day(day), **_pair(by_day[day])} for day in sorted(by_day)],
        "deciles": _deciles(tally.ranks),
        "capped": [
            {"scenario": name or None, "in_force": both + now, "draft": both + then, "newly": then}
            for name, (both, now, then) in sorted(tally.capped.items())
        ],
        "refused": [
            {"scenario": scenario, "code": code, "acts": n}
            for (code, scenario), (n,) in sorted(
                tally.refused.items(), key=lambda one: one[0][::-1]
            )
        ],
        "shadow": [
            {"scenario": scenario, "rule": rule, **dict(zip(SIDES, acts, strict=True))}
            for (scenario, rule), acts in sorted(tally.shadow.items())
        ],
        "budgets": [_budget(one) for one in budgets],
        "expiry": _expiry(tally),
        "rejected_in_life": window.refused,
        "notes": list(NOTES),
    }


def _rolled(sums: Sums, place: int | None) -> Sums:
    rolled = Sums(8)
    for key, values in sums.items():
        plus(rolled[key[place] if place is not None else ""], values)
    return rolled


def _pair(row: Sequence[int]) -> dict[str, Any]:
    return {side: _worth(*row[4 * n : 4 * n + 4]) for n, side in enumerate(SIDES)}


def _worth(acts: int, mg: int, points: int, withheld: int) -> dict[str, Any]:
    return {
        "acts": acts,
        "reduction_mg": str(mg),
        "points": str(points),
        "withheld_points": str(withheld),
        "points_per_kg": _tenths(points * _MG_PER_KG, mg),
    }


def _tenths(dividend: int, divisor: int) -> str | None:
    """A quotient with one decimal, rounded toward zero; None of nothing."""
    if not divisor:
        return None
    tenths = abs(dividend) * 10 // divisor
    return f"{'-' if dividend < 0 and tenths else ''}{tenths // 10}.{tenths % 10}"


def _drift(tally: Tally, budgets: Iterable[Budget]) -> dict[str, Any]:
    """Where the rules in force do not give what the ledger has: nowhere, or something is wrong."""
    short = [one for one in budgets if (one.waiting[0], one.left[0]) != one.recorded]
    return {
        "acts": tally.drifted,
        "examples": [
            {
                "entry_id": one.entry,
                "scenario": one.scenario,
                "recorded": one.recorded,
                "replayed": one.replayed,
            }
            for one in tally.drift
        ],
        "budgets": [
            {
                "scope": one.scope,
                "recorded_waiting_points": str(one.recorded[0]),
                "replayed_waiting_points": str(one.waiting[0]),
                "recorded_left_points": str(one.recorded[1]),
                "replayed_left_points": str(one.left[0]),
            }
            for one in short
        ],
    }


def _deciles(ranks: Sums) -> list[dict[str, Any]]:
    """Residents by their points in force, poorest tenth first; equals are never parted, so tenths
    may differ in size or be empty."""
    residents = sum(row[0] for row in ranks.values())
    rows = [[0] * 5 for _ in range(_DECILES)]
    below = 0
    for points in sorted(ranks):
        n, change, better, worse = ranks[points]
        into = rows[_DECILES * below // residents]
        plus(into, (n, points * n, change, better, worse))
        below += n
    return [
        {
            "decile": place,
            "residents": n,
            "in_force_points": str(points),
            "change_points": str(change),
            "mean_change_points": _tenths(change, n),
            "better": better,
            "worse": worse,
            "unchanged": n - better - worse,
        }
        for place, (n, points, change, better, worse) in enumerate(rows, 1)
    ]


def _budget(one: Budget) -> dict[str, Any]:
    available = one.opening + one.funded
    return {
        "scope": one.scope,
        "opening_points": str(one.opening),
        "funded_points": str(one.funded),
        **{
            side: {
                "needed_points": str(one.needed[n]),
                "missing_points": str(max(0, one.needed[n] - available)),
                "waiting_points": str(one.waiting[n]),
                "left_points": str(one.left[n]),
            }
            for n, side in enumerate(SIDES)
        },
    }


def _expiry(tally: Tally) -> dict[str, Any]:
    now, then, uncovered_now, uncovered_then = tally.ended[""]
    return {
        "years": [
            {"year": year, "in_force_points": str(one), "draft_points": str(other)}
            for year, (one, other) in sorted(tally.ending.items())
        ],
        "expired": {"in_force_points": str(now), "draft_points": str(then)},
        "uncovered_redemptions": {
            "in_force_points": str(uncovered_now),
            "draft_points": str(uncovered_then),
        },
    }


def _day(number: int) -> str:
    return f"{number // 10000:04d}-{number // 100 % 100:02d}-{number % 100:02d}"
