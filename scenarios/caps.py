"""How much of a behaviour earns points in a period, and what excludes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from scenarios.errors import Fault
from scenarios.schema import PERIODS, build, one_of, sourced, words

_NAME: Final = re.compile(r"[a-z][a-z0-9_.]{1,60}")


@dataclass(frozen=True, slots=True)
class Cap:
    """What a resident earns points for at most, in one period: carbon itself is never capped.

    `per` is "day" or "month" (Asia/Shanghai); `of` is "count" (the first acts of the period earn
    points), "grams" (reduction that earns points) or "points".
    """

    per: str
    of: str
    limit: int
    source: str
    url: str
    tag: str

    def __post_init__(self) -> None:
        one_of(self.per, PERIODS, "per")
        one_of(self.of, ("count", "grams", "points"), "of")
        sourced(self.source, self.tag)
        if self.limit < 1:
            raise Fault("FIELD_MALFORMED", "limit", "a limit is above zero")

    @property
    def name(self) -> str:
        """Stable words for a claim that was cut: "day.count"."""
        return f"{self.per}.{self.of}"


@dataclass(frozen=True, slots=True)
class Group:
    """Behaviours that describe the same act: a resident claims only one of them in a period."""

    name: str
    per: str
    members: tuple[str, ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise Fault("FIELD_MALFORMED", "name", "a group's name is lower case ASCII")
        one_of(self.per, PERIODS, "per")
        if not len(set(self.members)) == len(self.members) > 1:
            raise Fault("FIELD_MALFORMED", "members", "a group has at least two members, each once")

    @classmethod
    def parse(cls, table: dict[str, Any]) -> Group:
        """A group from its table. Raises Fault."""
        members = table.get("members") if isinstance(table, dict) else None
        return build(cls, table, members=words(members, "members"))
