"""The certificate of a donation: as data, and drawn. It names no person; its entry proves it."""

from __future__ import annotations

from html import escape
from typing import Any

import marshmallow as ma

from app.api.wire import stamp
from app.errors import Problem
from app.store.orders import Bought

_LINE = 24  # characters of a project's name on a line
_HOW = (
    "本捐赠已记入公开的积分账本。打开本记录的凭证，",
    "在平台的核验页（/verify）或离线工具中即可核对编号与积分。",
)
_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 566" width="800" height="566" \
font-family="Songti SC, SimSun, Noto Serif CJK SC, serif" text-anchor="middle" fill="#1d3b2a">
<rect width="800" height="566" fill="#fbfaf4"/>
<rect x="20" y="20" width="760" height="526" fill="none" stroke="#2f7d4f" stroke-width="3"/>
<rect x="30" y="30" width="740" height="506" fill="none" stroke="#2f7d4f"/>
<text x="400" y="104" font-size="44">捐赠证书</text>
<text x="400" y="136" font-size="15">Certificate of donation</text>
{body}
</svg>
"""


class CertificateSchema(ma.Schema):
    """What a donation went to. `entry_id` is its entry in the ledger; the receipt proves it."""

    number = ma.fields.String(required=True, metadata={"description": "the order's id"})
    project = ma.fields.String(required=True)
    title_zh = ma.fields.String(required=True)
    merchant = ma.fields.String(required=True, metadata={"description": "who carries it out"})
    quantity = ma.fields.Integer(required=True)
    points = ma.fields.String(required=True)
    donated_at = ma.fields.String(required=True, metadata={"format": "date-time"})
    donated_date = ma.fields.String(required=True, metadata={"format": "date"})
    entry_id = ma.fields.String(required=True)
    log_origin = ma.fields.String(required=True, metadata={"description": "the log it lies in"})
    how_to_verify_zh = ma.fields.String(required=True)


def certificate(one: Bought, origin: str) -> dict[str, Any]:
    """A certificate as CertificateSchema describes it. Raises Problem NOT_FOUND for what is no
    confirmed donation."""
    order = one.order
    if one.kind != "donation" or order.closed_at is None or order.entry is None:
        raise Problem("NOT_FOUND", "only a confirmed donation has a certificate")
    return {
        "number": order.id,
        "project": one.project,
        "title_zh": one.title_zh,
        "merchant": one.merchant_name,
        "quantity": order.quantity,
        "points": str(order.points),
        **stamp("donated", order.closed_at),
        "entry_id": order.entry,
        "log_origin": origin,
        "how_to_verify_zh": "".join(_HOW),
    }


def drawn(made: dict[str, Any]) -> str:
    """The certificate as SVG, A5 across, of text only: it holds no script and loads nothing."""
    year, month, day = made["donated_date"].split("-")
    project = made["project"]
    named = [project[at : at + _LINE] for at in range(0, len(project), _LINE)]
    lines = [
        (18, "感谢您将碳普惠积分捐赠给公益项目"),
        *((28, part) for part in named),
        (24, f"{made['points']} 积分"),
        (16, f"执行方：{made['merchant']}"),
        (16, f"{year} 年 {int(month)} 月 {int(day)} 日"),
        (13, f"证书编号 {made['number']}"),
        (13, f"账本记录 {made['entry_id']}（{made['log_origin']}）"),
        *((13, part) for part in _HOW),
    ]
    body, down = [], 180
    for size, text in lines:
        body.append(f'<text x="400" y="{down}" font-size="{size}">{escape(text)}</text>')
        down += size + 18
    return _SVG.format(body="\n".join(body))
