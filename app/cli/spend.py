"""Have residents of the sample city spend: at tills, on rewards, and bring some of it back.

Everything goes through HTTP as at a real till, under numbers that follow from who spends: run
again, what was done before is found and not done again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx

from app.cli.client import ProviderError
from app.cli.market import MARKET, TILL
from app.cli.merchant_client import MerchantClient, ResidentClient, read
from app.clock import Clock

SPENDERS: Final = 2  # residents who spend at the same time
_CHARGES: Final = 2
_UNKNOWN: Final = ("CHARGE_UNKNOWN", "USE_UNKNOWN", "NOT_FOUND")


def spend(http: httpx.Client, url: str, clock: Clock) -> None:
    """A day at the market, for those residents who have most points. Raises ProviderError."""
    shops = [MerchantClient(http, url, stall.code, clock) for stall in MARKET]
    named: list[str] = read(http.get(f"{url}/api/v1/sandbox/residents"))["items"]

    def day_out(resident: str) -> None:
        _spend(ResidentClient(http, url, resident), shops)

    with ThreadPoolExecutor(SPENDERS) as pool:
        list(pool.map(day_out, named))


def _spend(me: ResidentClient, shops: list[MerchantClient]) -> None:
    """One resident's day: two charges, an order, and now and then something given back."""
    number = int(me.resident[:4], 16)
    for turn in range(_CHARGES):
        shop, own = shops[(number + turn) % len(shops)], f"sample-{me.resident}-{turn}"
        points = 5 + (number * 7 + turn * 11) % 40
        paid = charge(me, shop, own, points)
        if paid["state"] == "succeeded" and number % 4 == turn:
            body = {"out_refund_no": f"{own}-r", "out_request_no": own, "reason": "退货"}
            shop.post("refunds", body | {"points": str(points // 2 + 1)})
        elif number % 7 == 3 + turn:
            shop.post(f"charges/{own}/reverse", {})
    offers = me.get("rewards?affordable=true&limit=50")["items"]
    if offers and not me.get("orders?limit=1")["items"]:
        offer = offers[number % len(offers)]
        bought = order(me, offer["id"], f"sample-{number:04x}")
        if bought["vouchers"] and number % 2:
            shop = next(one for one in shops if one.code == offer["merchant"]["code"])
            use(me, shop, bought["vouchers"][0], f"sample-{me.resident}-u")


def charge(me: ResidentClient, shop: MerchantClient, own: str, points: int) -> dict[str, Any]:
    """Charge a resident under a number of the shop's own, unless that was done; the charge, failed
    ones too. Raises ProviderError if it never came to one."""
    try:
        return shop.get(f"charges/{own}")
    except ProviderError as error:
        if error.code not in _UNKNOWN:
            raise
    body = {"out_request_no": own, "points": str(points), "till": TILL}
    try:
        return shop.post("charges", body | {"code": me.post("pay-code", {})["code"]})
    except ProviderError:
        return shop.get(f"charges/{own}")


def order(me: ResidentClient, reward: str, own: str) -> dict[str, Any]:
    """Order one piece of a reward and confirm it; under keys made of `own`, done once."""
    held = me.post("orders", {"reward": reward, "quantity": 1}, f"{own}-order")
    return me.post(f"orders/{held['id']}/confirm", None, f"{own}-confirm")


def use(me: ResidentClient, shop: MerchantClient, voucher: str, own: str) -> dict[str, Any]:
    """Use a voucher at a shop under a number of its own, unless that was done."""
    try:
        return shop.get(f"uses/{own}")
    except ProviderError as error:
        if error.code not in _UNKNOWN:
            raise
    code = me.post(f"vouchers/{voucher}/code", {})["code"]
    return shop.post("uses", {"out_use_no": own, "code": code, "till": TILL})
