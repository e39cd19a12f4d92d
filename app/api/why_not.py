"""Why an activity did not count, in a sentence a resident understands, with what can be done."""

from __future__ import annotations

from typing import Final

REASONS: Final = {
    # the scenario
    "UNKNOWN_SCENARIO": "上报的场景不在本市的减排目录里。请联系上报的机构核对场景，由其重新上报。",
    "SCENARIO_DISABLED": "这个场景暂未开放，开放前的行为不计入。开放时间会在场景目录里公布。",
    "BEFORE_SCENARIO": "行为发生时这个场景还没有生效，生效日之前的行为不计入。",
    "NOT_ELIGIBLE": "这次行为不符合场景的适用条件，条件写在场景说明里。如果情况不符，可以申诉。",
    "NO_REDUCTION": "按现行方法计算，这次行为没有产生减排量，所以没有积分。",
    # when
    "IN_FUTURE": "上报的行为时间晚于收到的时间，多半是机构的时钟有误。请联系机构更正后重新上报。",
    "TIME_MALFORMED": "上报的行为时间无法识别。请联系上报的机构更正后重新上报。",
    "TOO_LATE": "从行为发生到上报或绑定已超过该场景的认领期限，不能再计入。请尽早绑定账号。",
    # how much
    "QUANTITY_MISSING": "上报时缺少必填的数量。请联系上报的机构补全后重新上报。",
    "QUANTITY_UNKNOWN": "上报的内容里有这个场景不认识的数量。请联系上报的机构更正后重新上报。",
    "QUANTITY_MALFORMED": "上报的数量格式有误。请联系上报的机构更正后重新上报。",
    "QUANTITY_TOO_SMALL": "数量低于该场景的下限，太小的行为不计入。下限写在场景说明里。",
    "QUANTITY_TOO_LARGE": (
        "数量超出该场景的合理上限。如果确有其事，请联系上报的机构核对，或提出申诉。"
    ),
    # counted once, and plausible
    "SAME_ACT": "同一次行为已由另一个渠道上报，只计一次，您没有损失。",
    "ACTIVITY_ID_REUSED": "这个行为编号已用于另一次行为。请联系上报的机构换一个编号重新上报。",
    "EXCLUDED_BY_GROUP": "同一时段已按与它互斥的场景计入，两者只能计一个。",
    "CHECK_MISSING": (
        "缺少用于核验的数量（如时长），不能确认行为属实。请联系上报的机构补全后重新上报。"
    ),
    "IMPLAUSIBLE_SPEED": (
        "按里程和时长算出的速度不合常理。如果确有其事，请联系机构核对，或提出申诉。"
    ),
    "TOO_MANY_ACTS": "同一时段内的次数超出合理范围，多出的不计入。如果确有其事，可以申诉。",
    "TOO_MUCH_IN_TOTAL": "同一时段内的总量超出合理范围，多出的不计入。如果确有其事，可以申诉。",
    # what the resident allows
    "CONSENT_MISSING": (
        "您没有授权使用这个来源的这类数据，所以没有计入。在授权管理里同意后，之后的行为会计入。"
    ),
    "PROCESSING_RESTRICTED": (
        "您已要求暂停处理个人信息，暂停期间的行为不计入。取消暂停后，之后的行为会计入。"
    ),
    "REPORT_REFUSED": "审核员没有通过这次申报，理由见下。如果不同意，可以申诉。",
}
"""By the code an activity is refused with."""

OTHER: Final = "这次行为没有计入，原因见下。如有疑问，可以联系上报的机构，或提出申诉。"
"""For a code of a later version of this program."""
