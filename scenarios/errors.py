"""What can go wrong in this package. Every error is a sentence with a stable UPPER_SNAKE code."""

from __future__ import annotations

from typing import Final

TITLES: Final = {
    "UNKNOWN_SCENARIO": "没有这个减排场景",
    "SCENARIO_DISABLED": "该减排场景暂未开放",
    "BEFORE_SCENARIO": "行为发生时该场景尚未生效",
    "IN_FUTURE": "行为时间晚于当前时间",
    "TOO_LATE": "已超过可认领的期限",
    "TIME_MALFORMED": "行为时间格式不正确",
    "QUANTITY_MISSING": "缺少必填的数量",
    "QUANTITY_UNKNOWN": "包含该场景不认识的数量",
    "QUANTITY_MALFORMED": "数量格式不正确",
    "QUANTITY_TOO_SMALL": "数量低于该场景下限",
    "QUANTITY_TOO_LARGE": "数量高于该场景上限",
    "NOT_ELIGIBLE": "不符合该场景的适用条件",
    "NO_REDUCTION": "没有产生减排量",
    "EXCLUDED_BY_GROUP": "同一时段已按互斥场景计入",
    "CHECK_MISSING": "缺少核验所需的数量",
    "IMPLAUSIBLE_SPEED": "速度超出合理范围",
    "TOO_MANY_ACTS": "同一时段内次数超出合理范围",
    "TOO_MUCH_IN_TOTAL": "同一时段内总量超出合理范围",
}
"""The closed list of codes one activity can be refused with, and what a resident reads."""

FAULTS: Final = {
    "COEFFICIENT_OUT_OF_BOUNDS": "系数超出允许范围",
    "SOURCE_MISSING": "缺少数据来源",
    "VALUE_MISSING": "启用的场景缺少系数数值",
    "UNIT_UNKNOWN": "未知的计量单位",
    "EFFECT_OVERLAPS": "生效日期与其他版本重叠",
    "GROUP_CIRCULAR": "互斥关系循环",
    "GROUP_INCONSISTENT": "互斥关系不一致",
    "FIELD_UNKNOWN": "包含未知字段",
    "FIELD_MISSING": "缺少必填字段",
    "FIELD_MALFORMED": "字段不符合要求",
    "CATALOGUE_FAULT": "场景目录有误",
}
"""The closed list of codes an edition or a catalogue can be refused with."""


class ScenarioError(Exception):
    """The catalogue, a published version or an opening is not what it must be."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)  # both as args, so that it survives a process boundary
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class Fault(ScenarioError):  # noqa: N818  # the word of the house for what an author must mend
    """An edition or the catalogue is wrong at `field`, such as "coefficients.factor.value".

    `scenario` is the behaviour's id, "" when it is not known; `detail` says what to mend.
    """

    def __init__(self, code: str, field: str, detail: str, scenario: str = "") -> None:
        super().__init__(code, detail if detail.endswith(".") else f"{detail}.")
        self.args = (code, field, self.detail, scenario)
        self.field = field
        self.scenario = scenario

    def __str__(self) -> str:
        place = " ".join(part for part in (self.scenario, self.field) if part)
        return f"{place}: {self.detail}" if place else self.detail

    @property
    def title(self) -> str:
        """The few words an administrator reads in Chinese."""
        return FAULTS[self.code]

    def below(self, place: str) -> Fault:
        """The same fault, its field named from further out."""
        field = f"{place}.{self.field}" if self.field else place
        return Fault(self.code, field, self.detail, self.scenario)

    def of(self, scenario: str) -> Fault:
        """The same fault, with the behaviour it is about."""
        return Fault(self.code, self.field, self.detail, self.scenario or scenario)


class Rejected(ScenarioError):  # noqa: N818  # the word of the house: a rejection
    """One activity is refused; the others of its batch are not touched."""

    @property
    def title(self) -> str:
        """The few words a resident reads in Chinese."""
        return TITLES[self.code]
