"""`puhui merchant`: register a merchant, agree terms, decide, and keep its tills and keys.

What is done here leaves a record in the trail, as at an operator's desk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import click
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from app.cli.clock import now
from app.cli.operate import new_pair, parts, read_key
from app.config import CITY_ZONE, Config
from app.flows.administer import CLI
from app.flows.join import DISTRICTS
from app.flows.partner import contract, decide, fund, keys, stores
from app.flows.partner.apply import Application, apply
from app.flows.partner.licence import is_licence
from app.flows.partner.standing import known
from app.flows.public_key import PublicKey, key_id
from app.flows.trail import act
from app.store import merchants, premises
from app.store.merchants import Contract, KeyFace, Merchant
from app.vault import Vault
from ledger.text import base64

_FILE = click.Path(exists=True, path_type=Path)
_PUBLIC = click.option("--public", "public", type=_FILE, help="PEM file")
_WRITE = click.option(
    "--write", "write", type=click.Path(path_type=Path), help="make a pair, keep it here"
)
_POINTS = click.IntRange(0, 2**53 - 1)


@click.group()
def merchant() -> None:
    """Merchants where points are spent."""


@merchant.command("add")
@click.argument("code")
@click.argument("name")
@click.option("--licence", required=True, help="unified social credit code")
@click.option("--person", required=True, help="whom to call")
@click.option("--phone", required=True)
@_PUBLIC
@_WRITE
@click.pass_obj
def merchant_add(
    config: Config,
    code: str,
    name: str,
    licence: str,
    person: str,
    phone: str,
    public: Path | None,
    write: Path | None,
) -> None:
    """Keep an application that came on paper, with the merchant's first key; prints its id."""
    if not is_licence(licence):
        raise click.UsageError(f"{licence} is no unified social credit code (GB 32100-2015)")
    said = Application(code, name, licence, {"person": person, "phone": phone})
    try:
        with _key(public, write) as key, _change(config) as (tx, vault, at):
            apply(tx, vault, said, key, at)
            named = key_id(code, key.der)
            act(tx, CLI, "merchant.added", code, {"name": name, **_shown(named, key)}, at)
    except IntegrityError:
        raise click.UsageError("CODE must be 2 to 31 of a-z 0-9 -, and not begin with -") from None
    click.echo(named)


@merchant.command("contract")
@click.argument("code")
@click.option("--payer", type=click.Choice(["city", "merchant"]), required=True)
@click.option("--mode", type=click.Choice(["prepaid", "postpaid"]), required=True)
@click.option("--fen", type=click.IntRange(0, 1_000_000), required=True, help="per 100 points")
@click.option("--limit", type=_POINTS, default=0, help="points, of a postpaid one")
@click.option("--alert", type=_POINTS, default=0, help="points: tell the merchant below these")
@click.option("--reference", required=True, help="the contract's number")
@click.pass_obj
def merchant_contract(
    config: Config, code: str, payer: str, mode: str, fen: int, limit: int, alert: int,
    reference: str,
) -> None:  # fmt: skip
    """Put new terms in force."""
    if (mode == "postpaid") != (limit > 0) or (payer == "merchant" and fen):
        raise click.UsageError(
            "--limit is a postpaid contract's; --fen is 0 if the merchant bears it"
        )
    with _change(config) as (tx, vault, at):
        terms = Contract(0, payer, mode, fen, limit, alert, reference, at)
        made = contract.agree(tx, vault, CLI, code, None, terms, at)
    click.echo(f"contract {made.number} of {code} is in force")


@merchant.command("decide")
@click.argument("code")
@click.argument("verb", type=click.Choice(list(decide.MOVES)))
@click.option("--reason", required=True, help="the merchant reads it")
@click.pass_obj
def merchant_decide(config: Config, code: str, verb: str, reason: str) -> None:
    """Approve, suspend, resume or close a merchant."""
    with _change(config) as (tx, vault, at):
        made = decide.decide(tx, vault, CLI, code, None, verb, reason, at)
    click.echo(f"{code} is {made.state}")


@merchant.command("till")
@click.argument("code")
@click.argument("till")
@click.option("--store", required=True, help="the store's code")
@click.option("--name", help="the store's name, if the store is new or changes")
@click.option("--district", type=click.Choice(list(DISTRICTS)), help="GB/T 2260")
@click.option("--address")
@click.pass_obj
def merchant_till(
    config: Config,
    code: str,
    till: str,
    store: str,
    name: str | None,
    district: str | None,
    address: str | None,
) -> None:
    """Open a TILL in a store, which is made too if its name, district and address are given."""
    place = {"name": name, "district": district, "address": address}
    if any(place.values()) and not all(place.values()):
        raise click.UsageError("a store needs --name, --district and --address")
    try:
        with _change(config) as (tx, _, at):
            one = known(tx, code)
            if name:
                stores.put_store(tx, one.id, store, {**place, "open": True})
            stores.put_till(tx, one.id, till, store, is_open=True)
            act(tx, CLI, "merchant.till", code, {"store": store, "till": till}, at)
    except IntegrityError:
        raise click.UsageError("codes are 1 to 32 of A-Z a-z 0-9 _ -") from None
    click.echo(f"till {till} is open in store {store}")


@merchant.command("key")
@click.argument("code")
@click.option("--till", help="the one till it is for")
@_PUBLIC
@_WRITE
@click.pass_obj
def merchant_key(
    config: Config, code: str, till: str | None, public: Path | None, write: Path | None
) -> None:
    """Register a further key; prints its id."""
    with _key(public, write) as key, _change(config) as (tx, _, at):
        named = keys.add_key(tx, code, till, key, at)
        detail = _shown(named, key) | ({"till": till} if till else {})
        act(tx, CLI, "merchant.key_added", code, detail, at)
    click.echo(named)


@merchant.command("revoke")
@click.argument("code")
@click.argument("key_id")
@click.pass_obj
def merchant_revoke(config: Config, code: str, key_id: str) -> None:
    """Refuse every request signed with this key from now on."""
    with _change(config) as (tx, _, at):
        keys.revoke_key(tx, code, key_id, at)
        act(tx, CLI, "merchant.key_revoked", code, {"key_id": key_id}, at)
    click.echo(f"key {key_id} is refused from now on")


@merchant.command("fund")
@click.argument("code")
@click.argument("points", type=click.IntRange(1, 2**53 - 1))
@click.option("--reference", required=True, help="the payment's number; counts once")
@click.pass_obj
def merchant_fund(config: Config, code: str, points: int, reference: str) -> None:
    """Add what a prepaid merchant paid for to its allowance."""
    with _change(config) as (tx, vault, at):
        entry, _ = fund.pay_in(tx, vault, CLI, code, points, reference, at)
    click.echo(f"entry {entry.id}")


@merchant.command("show")
@click.argument("code", required=False)
@click.pass_obj
def merchant_show(config: Config, code: str | None) -> None:
    """Every merchant, a line each; or one with its terms, stores, tills and keys."""
    with parts(config) as (_, engine, _vault), engine.connect() as tx:
        if code is not None:
            for line in _whole(tx, known(tx, code)):
                click.echo(line)
            return
        after = ""
        while found := merchants.page(tx, None, None, after, 100):
            for one in found:
                click.echo(_line(tx, one))
            after = found[-1].code


def _line(tx: Connection, one: Merchant) -> str:
    return f"{one.code}  {one.name}  {one.state}  {merchants.allowance(tx, one.id)} left"


def _whole(tx: Connection, one: Merchant) -> Iterator[str]:
    yield _line(tx, one)
    for terms in merchants.contracts(tx, one.id):
        yield (
            f"contract {terms.number}  {terms.mode}, {terms.payer} pays,"
            f" {terms.fen_per_100_points} fen for 100 points,"
            f" limit {terms.limit_points}, alert {terms.alert_points}"
        )
    for store in premises.stores(tx, one.id):
        yield f"store {store.code}  {store.name}{'' if store.open else '  closed'}"
    for till in premises.tills(tx, one.id):
        yield f"till {till.code}  in {till.store}{'' if till.open else '  closed'}"
    for key in merchants.keys(tx, one.id):
        yield f"key {key.key_id}  {_state(key)}"


def _state(key: KeyFace) -> str:
    whose = f"of till {key.till}" if key.till else "of the merchant"
    if key.revoked_at is None:
        return f"{key.algorithm} {whose}"
    return f"{key.algorithm} {whose}, revoked {key.revoked_at.astimezone(CITY_ZONE):%Y-%m-%d}"


@contextmanager
def _key(public: Path | None, write: Path | None) -> Iterator[PublicKey]:
    if public and not write:
        yield read_key(public.read_bytes())
    elif write and not public:
        with new_pair(write) as made:
            yield made
    else:
        raise click.UsageError("give either --public FILE or --write FILE")


@contextmanager
def _change(config: Config) -> Iterator[tuple[Connection, Vault, datetime]]:
    with parts(config) as (_, engine, vault), engine.begin() as tx:
        yield tx, vault, now()


def _shown(named: str, key: PublicKey) -> dict[str, str]:
    return {"key_id": named, "public_key": base64(key.der)}


COMMANDS = (merchant,)
