"""The rules against fraud: what each looks for, and the bounds within which operators tune it.

Each rule is a setting `fraud.<rule>`: an object of its `mode` and its limits. It begins in shadow:
cases are opened and marked so, and nobody is hindered, until somebody has seen what it would do.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from app.store.fraud import COUNTED

IN_THE_WAY: Final = ("off", "shadow", "refuse")
AFTERWARDS: Final = ("off", "shadow", "report")


class Rule(NamedTuple):
    """A rule: what it means, its modes, and each limit's default and bounds."""

    meaning: str
    modes: tuple[str, ...]
    limits: dict[str, tuple[int, int, int]]

    @property
    def default(self) -> dict[str, Any]:
        """The setting until somebody sets it."""
        return {"mode": "shadow"} | {name: first for name, (first, _, _) in self.limits.items()}

    def fault(self, value: Any) -> str:
        """What is wrong with a value for the setting; "" if nothing is."""
        named = " and ".join(["mode", *self.limits])
        if not isinstance(value, dict) or value.keys() != {"mode", *self.limits}:
            return f"must be an object of {named}"
        if value["mode"] not in self.modes:
            return f"mode must be one of {', '.join(self.modes)}"
        for name, (_, least, most) in self.limits.items():
            if type(value[name]) is not int or not least <= value[name] <= most:
                return f"{name} must be a whole number from {least} to {most}"
        return ""


RULES: Final[dict[str, Rule]] = {
    "resident": Rule(
        "a resident's charges and orders in an hour and a day, and points spent a day",
        IN_THE_WAY,
        {
            "hour_count": (20, 1, COUNTED),
            "day_count": (60, 1, COUNTED),
            "day_points": (20_000, 1, 100_000_000),
        },
    ),
    # A sign-in is one account's, and WeChat names no device: whose codes else a phone shows nobody
    # can know.
    "device": Rule(
        "devices (sign-ins) on which one resident shows codes in a day",
        IN_THE_WAY,
        {"day_devices": (4, 1, 100)},
    ),
    "staff": Rule("residents who spend at a merchant that they work for", IN_THE_WAY, {}),
    "till": Rule("charges at one till in a minute", AFTERWARDS, {"minute_count": (30, 1, 10_000)}),
    "same_amount": Rule(
        "charges of one amount at one till within a clock hour; fares are such, and are let be"
        " by a higher limit",
        AFTERWARDS,
        {"hour_count": (60, 2, 100_000)},
    ),
    "refund_share": Rule(
        "refunds and reversals at one till within a clock hour, if they are more than so many and"
        " more than so many percent of its charges",
        AFTERWARDS,
        {"hour_count": (5, 1, 100_000), "percent": (50, 1, 1000)},
    ),
    "refunds": Rule(
        "a resident's charges at one merchant in a day that were given back",
        AFTERWARDS,
        {"day_count": (5, 1, COUNTED)},
    ),
}


def name_of(rule: str) -> str:
    """The name of the rule's setting."""
    return f"fraud.{rule}"
