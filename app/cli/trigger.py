"""`puhui trigger`: make a real thing of a kind happen in the sandbox, so that its event is sent.

Nothing is faked: a resident of the sandbox shows a code, a sandbox merchant charges it through
HTTP, and so on; what needs time moves the sandbox's clock. Demo and test mode only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as clock_time
from secrets import token_hex
from typing import Any, Final

import click
import httpx
import orjson

from app.cli.client import TIMEOUT_S, ProviderError
from app.cli.merchant_client import MerchantClient, ResidentClient, read
from app.cli.operate import parts
from app.cli.spend import charge, order, use
from app.clock import FILE, MovedClock
from app.config import CITY_ZONE, Config, ConfigError
from app.flows.administer import CLI
from app.flows.partner.contract import agree
from app.flows.partner.decide import decide
from app.flows.partner.sandbox import CODE
from app.store import merchants

_POINTS: Final = 20
_WAIT_S: Final = 90  # the worker looks at days and allowances once a minute, of the city's time
_NOON: Final = clock_time(12)
_ROUND: Final = timedelta(seconds=61)
_AFTER_MIDNIGHT: Final = timedelta(minutes=5)

Said = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """Whom things happen to: a sandbox merchant and a resident with points."""

    config: Config
    clock: MovedClock
    shop: MerchantClient
    me: ResidentClient

    def number(self) -> str:
        """A request number of the merchant's own."""
        return f"trigger-{token_hex(8)}"


def _charged(stage: Stage) -> Said:
    made = charge(stage.me, stage.shop, stage.number(), _POINTS)
    if made["state"] != "succeeded":
        raise ProviderError(made["code"] or "PENDING", made["detail"] or "the charge is pending")
    return made


def _refunded(stage: Stage) -> Said:
    paid = _charged(stage)["out_request_no"]
    body = {"out_request_no": paid, "points": str(_POINTS // 2), "reason": "退货"}
    return stage.shop.post("refunds", body | {"out_refund_no": stage.number()})


def _reversed(stage: Stage) -> Said:
    return stage.shop.post(f"charges/{_charged(stage)['out_request_no']}/reverse", {})


def _ordered(stage: Stage, title: str = "A cup of tea") -> Said:
    offers = stage.me.get(f"rewards?merchant={stage.shop.code}&limit=50")["items"]
    offers.sort(key=lambda one: one["title_en"] != title)
    if not offers:
        raise ProviderError("NOT_FOUND", f"{stage.shop.code} has no open reward")
    return order(stage.me, offers[0]["id"], stage.number())


def _voucher(stage: Stage, title: str = "A cup of tea") -> str:
    voucher: str = _ordered(stage, title)["vouchers"][0]
    return voucher


def _used(stage: Stage) -> Said:
    return use(stage.me, stage.shop, _voucher(stage), stage.number())


def _voided(stage: Stage) -> Said:
    body = {"out_void_no": stage.number(), "voucher": _voucher(stage), "reason": "售罄"}
    return stage.shop.post("voids", body)


def _lapsed(stage: Stage) -> Said:
    voucher = _voucher(stage, "A pastry, today")
    returns_on = date.fromisoformat(stage.me.get(f"vouchers/{voucher}")["returns_on"])
    noon = datetime.combine(returns_on, _NOON, CITY_ZONE)
    _move(stage, noon - stage.clock())
    resident = stage.me.again()  # days have passed, and the token with them
    return _until(lambda: resident.get(f"vouchers/{voucher}"), lambda one: one["state"] == "lapsed")


def _billed(stage: Stage) -> Said:
    _charged(stage)
    today = stage.clock().astimezone(CITY_ZONE)
    midnight = (today + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    _move(stage, midnight - today + _AFTER_MIDNIGHT)
    return _until(lambda: stage.shop.get(f"bills/{today.date()}"), lambda one: one["csv_sha256"])


def _low(stage: Stage) -> Said:
    """Raise the level that the merchant is warned at above what is left, and put it back."""
    code, now = stage.shop.code, stage.clock()
    left = int(stage.shop.get("profile")["allowance_points"])
    with parts(stage.config) as (_, engine, vault):
        with engine.begin() as tx:
            one = merchants.find(tx, code)
            terms = merchants.contract(tx, one.id) if one else None
            if terms is None:
                raise ProviderError("CONTRACT_MISSING", f"{code} has no contract")
            raised = terms._replace(alert_points=left + 1, reference="puhui trigger")
            agree(tx, vault, CLI, code, None, raised, now)
        _move(stage, _ROUND)
        said = _until(lambda: stage.shop.get("profile"), lambda profile: "low_at" in profile)
        with engine.begin() as tx:
            agree(tx, vault, CLI, code, None, terms, now)
    return said


def _state(stage: Stage) -> Said:
    """Suspend the merchant and let it go on."""
    code = stage.shop.code
    with parts(stage.config) as (_, engine, vault):
        for verb in ("suspend", "resume"):
            with engine.begin() as tx:
                decide(tx, vault, CLI, code, None, verb, "puhui trigger", stage.clock())
    return stage.shop.get("profile")


def _test(stage: Stage) -> Said:
    active = [one for one in stage.shop.get("webhooks")["items"] if one["state"] == "active"]
    if not active:
        raise ProviderError("WEBHOOK_UNKNOWN", f"{stage.shop.code} has no active endpoint")
    return {one["url"]: stage.shop.post(f"webhooks/{one['id']}/test", {}) for one in active}


KINDS: Final[dict[str, Callable[[Stage], Said]]] = {
    "charge.succeeded": _charged,
    "charge.refunded": _refunded,
    "charge.reversed": _reversed,
    "order.confirmed": _ordered,
    "voucher.used": _used,
    "voucher.voided": _voided,
    "voucher.lapsed": _lapsed,
    "bill.ready": _billed,
    "allowance.low": _low,
    "merchant.state": _state,
    "endpoint.test": _test,
}


@click.command()
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.option("--merchant", default=CODE, show_default=True, help="a merchant of the sandbox")
@click.option("--url", default="http://127.0.0.1:8000", show_default=True)
@click.pass_obj
def trigger(config: Config, kind: str, merchant: str, url: str) -> None:
    """Make something of KIND happen for a sandbox merchant, in a demo that runs.

    voucher.lapsed, bill.ready and allowance.low move the sandbox's clock forward.
    """
    with _stage(config, merchant, url) as stage:
        said = KINDS[kind](stage)
    click.echo(orjson.dumps(said).decode())


@click.command("pay-code")
@click.option("--url", default="http://127.0.0.1:8000", show_default=True)
@click.pass_obj
def pay_code(config: Config, url: str) -> None:
    """A fresh code of a resident of the sandbox, to be charged by a till within 60 seconds."""
    with _stage(config, CODE, url) as stage:
        click.echo(stage.me.post("pay-code", {})["code"])


@contextmanager
def _stage(config: Config, code: str, url: str) -> Iterator[Stage]:
    if not config.sandbox:
        raise ConfigError("there is no sandbox in production")
    clock = MovedClock(config.data_dir / FILE)
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as http:
        named = read(http.get(f"{url}/api/v1/sandbox/residents"))["items"]
        if not named:
            raise ProviderError("NOT_FOUND", "nobody lives here yet; run `puhui demo` first")
        me = ResidentClient(http, url, named[0])
        yield Stage(config, clock, MerchantClient(http, url, code, clock), me)


def _move(stage: Stage, by: timedelta) -> None:
    stage.clock.move(stage.clock.offset + by)
    at = stage.clock().astimezone(CITY_ZONE).isoformat(timespec="seconds")
    click.echo(f"the sandbox's time is now {at}", err=True)


def _until(ask: Callable[[], Said], good: Callable[[Said], Any]) -> Said:
    """The first good answer, as soon as the worker has got there. Raises click.ClickException."""
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        try:
            said = ask()
            if good(said):
                return said
        except ProviderError as error:
            if not error.code.startswith("BILL_"):
                raise
        time.sleep(0.5)
    raise click.ClickException(f"the worker did not get there within {_WAIT_S} s; does it run?")


COMMANDS = (trigger, pay_code)
