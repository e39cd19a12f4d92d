"""What can go wrong in this package. Every error is a sentence with a stable UPPER_SNAKE code."""

from __future__ import annotations

from typing import Final

TITLES: Final = {
    "UNKNOWN_SCENARIO": "没有这个减排场景",
    "SCENARIO_DISABLED": "该减排场景暂未开放",
    "BEFORE_SCENARIO": "行为发生时该场景尚未生效",
    "IN_FUTURE": "行为时间晚于当前时间",
    "TIME_MALFORMED": "行为时间格式不正确",
    "QUANTITY_MISSING": "缺少必填的数量",
    "QUANTITY_UNKNOWN": "包含该场景不认识的数量",
    "QUANTITY_MALFORMED": "数量格式不正确",
    "QUANTITY_TOO_SMALL": "数量低于该场景下限",
    "QUANTITY_TOO_LARGE": "数量高于该场景上限",
    "NO_REDUCTION": "没有产生减排量",
    "EXCLUDED_BY_GROUP": "同一时段已按互斥场景计入",
}
"""The closed list of codes one activity can be refused with, and what a resident reads."""


class ScenarioError(Exception):
    """The catalogue, a published version or an opening is not what it must be."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)  # both as args, so that it survives a process boundary
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class Rejected(ScenarioError):  # noqa: N818  # the word of the house: a rejection
    """One activity is refused; the others of its batch are not touched."""

    @property
    def title(self) -> str:
        """The reason in Chinese, for the resident."""
        return TITLES[self.code]
