"""Notify: put a message into a resident's inbox, once, and mark it for a push if they want one.

What a message says is sealed under the resident's own key, like all that is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

import orjson
from sqlalchemy import Connection

from app.store import messages
from app.vault import Vault, seal, unseal


class Wording(NamedTuple):
    """A kind's title and sentence; the sentence names the parameters it needs."""

    title: str
    sentence: str


WORDINGS: Final = {
    "points.expiring": Wording("积分即将到期", "您有 {points} 积分将于 {date} 到期，请及时使用。"),
    "points.returned": Wording("积分已退回", "{points} 积分已退回您的账户：{reason}"),
    "appeal.decided": Wording("申诉有新进展", "您的申诉{result}。{reason}"),
    "binding.dispute": Wording(
        "绑定有争议", "有人申请绑定您名下的{provider}账号。若不是您的，请解除绑定；若是，无需操作。"
    ),
    "report.decided": Wording("申报审核结果", "您申报的「{title}」{result}。{reason}"),
    "voucher.ending": Wording("卡券即将到期", "您的「{title}」将于 {date} 到期，{unused}"),
    "charge.pending": Wording(
        "待确认的付款", "{merchant}请求支付 {points} 积分，请在一分钟内确认或拒绝。"
    ),
    "charge.refunded": Wording("积分已退款", "{merchant}已将 {points} 积分退回您的账户。"),
    "challenge.reached": Wording("挑战已达成", "恭喜！您已达成「{title}」。"),
}
"""Every kind of message. A parameter of any script is put in as it is."""


class Letter(NamedTuple):
    """What a message says: its title, its sentence, and the parameters for a client of its own."""

    title: str
    text: str
    params: dict[str, str]


def notify(
    tx: Connection,
    vault: Vault,
    resident: str,
    kind: str,
    key: str,
    params: Mapping[str, str],
    now: datetime,
) -> bool:
    """Tell a resident something, once: (resident, kind, key) names the message, so that this may
    be repeated. `params` are those the kind's wording names, and may be more.

    Returns False if it was told before, or if nobody is there any more to be told. The resident is
    locked (shared) until `tx` ends: call it before budgets are locked, or hold the resident then.
    """
    wording = WORDINGS[kind]
    wrapped = messages.hold(tx, resident)
    if wrapped is None:
        return False
    letter = [wording.title, wording.sentence.format_map(params), dict(params)]
    own = vault.subject_key(resident, wrapped)
    return messages.put(
        tx, resident, kind, key, seal(own, orjson.dumps(letter), _context(kind, key)), now
    )


def read_letter(own: bytes, message: messages.Message) -> Letter:
    """What a message says, by its resident's own key. Raises VaultError."""
    plain = unseal(own, message.sealed, _context(message.kind, message.key))
    return Letter(*orjson.loads(plain))


def _context(kind: str, key: str) -> bytes:
    return f"message {kind} {key}".encode()
