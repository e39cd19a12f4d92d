"""What an operator does: keys, schema, rules, providers, budgets, the log, and the processes.

What is done here leaves an entry of its own in the ledger, or one in the trail of administrators.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from secrets import token_hex

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import IntegrityError

from app.api.frame import configure_logs
from app.cli.clock import now as _now
from app.cli.local import local_config
from app.cli.runner import Runner
from app.clock import city_clock
from app.config import Config, ConfigError
from app.cores import bring, but_one, keep_to, ours
from app.flows.administer import CLI
from app.flows.budget import fund_budget
from app.flows.check import check_database
from app.flows.erase import erase, erase_again
from app.flows.export import export_log
from app.flows.privacy import publish_notices
from app.flows.public_key import KeyUnreadableError, PublicKey, read_public
from app.flows.publish import publish
from app.flows.push import Pusher
from app.flows.ranking import Rankings
from app.flows.rotate import rotate_log_key
from app.flows.seal import Sealer
from app.flows.trail import act
from app.flows.webhook.deliver import Courier
from app.flows.work import Worker
from app.store import budgets, gauges, providers
from app.store.db import migrate as run_migrations
from app.vault import Vault, create_keys, open_vault, renew_token_key, renew_voucher_key
from app.wechat import connect
from app.wiring import open_redis
from ledger.text import base64
from scenarios import AREAS, load


@contextmanager
def parts(config: Config) -> Iterator[tuple[Config, Engine, Vault]]:
    """Engine and vault of a command, with the local servers up in demo and test mode."""
    ready = local_config(config)
    if ready.database_url is None:
        raise ConfigError("DATABASE_URL is not set")
    engine = create_engine(ready.database_url)
    try:
        yield ready, engine, open_vault(ready.keys_dir)
    finally:
        engine.dispose()


@click.group()
def keys() -> None:
    """Secrets and log keys."""


@keys.command("init")
@click.pass_obj
def keys_init(config: Config) -> None:
    """Make all secrets and the first log key in the keys folder."""
    create_keys(config.keys_dir, config.log_origin)
    click.echo(f"keys written to {config.keys_dir}; back them up apart from the database")


@keys.command("rotate")
@click.pass_obj
def keys_rotate(config: Config) -> None:
    """Add a log key, signed over by the old one, and seal that into the log."""
    with parts(config) as (ready, engine, vault):
        entry = rotate_log_key(engine, vault, ready.keys_dir, _now())
        click.echo(f"new key {entry.detail['new']}")
        click.echo(
            "restart web and worker; when a checkpoint bears both signatures, remove the older"
            " log-N.key from the keys folder and restart again"
        )


@keys.command("renew-token")
@click.pass_obj
def keys_renew_token(config: Config) -> None:
    """Make a new token.key; what the old one has signed stays good for its half hour."""
    renew_token_key(config.keys_dir)
    click.echo("a new token.key is there, the one before is token.old.key; restart the web")


@keys.command("renew-voucher")
@click.pass_obj
def keys_renew_voucher(config: Config) -> None:
    """Make a new voucher.key; what the old one has signed stays good for tills to report."""
    renew_voucher_key(config.keys_dir)
    click.echo("a new voucher.key is there; one before it is voucher.old.key; restart the web")


@click.command()
@click.pass_obj
def migrate(config: Config) -> None:
    """Bring the schema to the newest version (as DATABASE_OWNER_URL)."""
    if config.owner_url is None:
        raise ConfigError("DATABASE_OWNER_URL is not set; migrations run as the schema's owner")
    run_migrations(config.owner_url)
    click.echo("the schema is current")


@click.command("publish")
@click.pass_obj
def publish_rules(config: Config) -> None:
    """Publish the scenario versions and privacy notices that are not published yet."""
    with parts(config) as (ready, engine, vault):
        publish_notices(engine, _now())
        count = publish(engine, vault, load(), _now(), ready.notice_days)
    click.echo(f"{count} versions published")


@click.group()
def provider() -> None:
    """Activity providers and their keys."""


@provider.command("add")
@click.argument("code")
@click.argument("name")
@click.pass_obj
def provider_add(config: Config, code: str, name: str) -> None:
    """Register a provider, for example `puhui provider add bus-co 长治公交`."""
    try:
        with parts(config) as (_, engine, _vault), engine.begin() as tx:
            if not providers.add(tx, code, name, _now()):
                raise click.ClickException(f"provider {code} exists already")
            act(tx, CLI, "provider.added", code, {"name": name}, _now())
    except IntegrityError:
        raise click.UsageError("CODE must be 2 to 31 of a-z 0-9 -, and not begin with -") from None
    click.echo(f"provider {code} added; give it a key with `puhui provider key {code}`")


@provider.command("key")
@click.argument("code")
@click.option("--public", "public", type=click.Path(exists=True, path_type=Path), help="PEM file")
@click.option("--write", "write", type=click.Path(path_type=Path), help="make a pair, keep it here")
@click.pass_obj
def provider_key(config: Config, code: str, public: Path | None, write: Path | None) -> None:
    """Register a provider's public key (--public), or make a pair for trying out (--write)."""
    given = public.read_bytes() if public else write
    if given is None or (public and write):
        raise click.UsageError("give either --public FILE or --write FILE")
    with parts(config) as (_, engine, _vault):
        key_id = add_provider_key(engine, code, given, _now())
    click.echo(key_id)


def add_provider_key(engine: Engine, code: str, public: bytes | Path, now: datetime) -> str:
    """Register a PEM public key, or make an Ed25519 pair and write its private half to a path.

    Raises click.ClickException for a key that requests cannot be signed with, or no such provider.
    """
    if isinstance(public, bytes):
        return _register(engine, code, read_key(public), now)
    with new_pair(public) as made:
        return _register(engine, code, made, now)


@contextmanager
def new_pair(path: Path) -> Iterator[PublicKey]:
    """Make an Ed25519 pair and write its private half to a path; nothing stays there if the key
    then is not registered."""
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        yield PublicKey("ed25519", spki)
    except Exception:
        path.unlink()
        raise


def read_key(pem: bytes) -> PublicKey:
    """A public key of somebody who signs. Raises click.ClickException."""
    try:
        return read_public(pem.decode("ascii", "replace"))
    except KeyUnreadableError as error:
        raise click.ClickException(str(error)) from None


def _register(engine: Engine, code: str, key: PublicKey, now: datetime) -> str:
    key_id = f"{code}-{token_hex(4)}"
    try:
        with engine.begin() as tx:
            providers.add_key(tx, key_id, code, key.algorithm, key.der, now)
            detail = {"key_id": key_id, "public_key": base64(key.der)}
            act(tx, CLI, "provider.key_added", code, detail, now)
    except IntegrityError:
        raise click.ClickException(f"there is no provider {code}; add it first") from None
    return key_id


@provider.command("revoke")
@click.argument("key_id")
@click.pass_obj
def provider_revoke(config: Config, key_id: str) -> None:
    """Refuse every request signed with this key from now on; the provider's other keys stay."""
    with parts(config) as (_, engine, _vault), engine.begin() as tx:
        if not providers.revoke_key(tx, key_id, _now()):
            raise click.ClickException(f"no key {key_id} is in force")
        act(tx, CLI, "provider.key_revoked", key_id, {}, _now())
    click.echo(f"key {key_id} is refused from now on")


@provider.command("list")
@click.pass_obj
def provider_list(config: Config) -> None:
    """Every provider with its keys."""
    with parts(config) as (_, engine, _vault), engine.begin() as tx:
        for code, name, key_id, algorithm, revoked_at in providers.overview(tx):
            key = f"{key_id} {algorithm}" if key_id else "no key"
            click.echo(f"{code}  {name}  {key}{'  revoked' if revoked_at else ''}")


@click.group()
def budget() -> None:
    """Who pays for points."""


@budget.command("create")
@click.argument("scope")
@click.argument("name")
@click.pass_obj
def budget_create(config: Config, scope: str, name: str) -> None:
    """Make a budget for a scenario id, an area, or '*'."""
    if scope not in {budgets.ANY_SCOPE, *AREAS, *load().scenarios}:
        raise click.UsageError(f"SCOPE {scope!r} is no scenario's id, no area and not '*'")
    with parts(config) as (_, engine, _vault), engine.begin() as tx:
        if not budgets.create(tx, token_hex(16), name, scope, _now()):
            raise click.ClickException(f"scope {scope} has a budget already")
        act(tx, CLI, "budget.created", scope, {"name": name}, _now())
    click.echo(f"budget {scope} made; fund it with `puhui budget fund`")


@budget.command("fund")
@click.argument("scope")
@click.argument("points", type=click.IntRange(1, 2**53 - 1))
@click.option("--reference", required=True, help="the decision's number; counts once")
@click.pass_obj
def budget_fund(config: Config, scope: str, points: int, reference: str) -> None:
    """Add points to a budget; those who wait are paid by the worker, in order."""
    with parts(config) as (_, engine, vault):
        entry = fund_budget(engine, vault, scope, points, reference, _now())
    click.echo(f"entry {entry.id}")


@budget.command("list")
@click.pass_obj
def budget_list(config: Config) -> None:
    """Every budget: scope, name, points left, points waiting."""
    with parts(config) as (_, engine, _vault), engine.begin() as tx:
        for item in gauges.budgets(tx):
            click.echo(
                f"{item.scope}  {item.name}  {item.left_points} left  {item.waiting_points} waiting"
            )


@click.command()
@click.pass_obj
def worker(config: Config) -> None:
    """Seal about every second, pay who waits, expire points; one or many may run."""
    configure_logs()
    cores = os.sched_getaffinity(0)
    keep_to(but_one())
    with parts(config) as (ready, engine, vault):
        bring(engine, ours)
        sealer = Sealer(engine, vault, ready.head_file)
        line = connect(ready, None)  # sharing its access token would only save a call
        clock = city_clock(ready)
        pusher = Pusher(engine, vault, line, clock) if ready.wechat_app_id else None
        rankings = Rankings(engine, vault, open_redis(ready.redis_url)) if ready.redis_url else None
        courier = Courier(engine, vault, clock, loopback=ready.webhook_loopback)
        beside = [one.run for one in (pusher, courier) if one is not None]
        Worker(engine, vault, sealer, clock, Runner(ready, engine, cores), beside, rankings).run()


@click.group("log")
def log_group() -> None:
    """The verifiable log."""


@log_group.command("seal")
@click.pass_obj
def log_seal(config: Config) -> None:
    """Seal all that is pending now."""
    with parts(config) as (ready, engine, vault):
        sealer = Sealer(engine, vault, ready.head_file)
        total = 0
        while count := sealer.seal(_now()):
            total += count
    click.echo(f"{total} entries sealed")


@log_group.command("adopt")
@click.confirmation_option(prompt="Was every newer checkpoint announced as lost?")
@click.pass_obj
def log_adopt(config: Config) -> None:
    """Take the database's last checkpoint as the outside copy, after a loss was announced."""
    with parts(config) as (ready, engine, vault):
        size = Sealer(engine, vault, ready.head_file).adopt()
    click.echo(f"the outside copy now says {size} entries")


@click.command("erase")
@click.argument("resident", required=False)
@click.option("--again", is_flag=True, help="everybody whom the log says was erased")
@click.option(
    "--export",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="with --again, also whom this export of the log says was erased",
)
@click.confirmation_option(prompt="Erase for good?")
@click.pass_obj
def erase_resident(config: Config, resident: str | None, again: bool, folder: Path | None) -> None:
    """Destroy what names a RESIDENT (32 hex digits); every receipt and proof still holds.

    After a restore, run it with --again.
    """
    if again == (resident is not None) or (folder and not again):
        raise click.UsageError("name a RESIDENT, or say --again, perhaps with --export")
    if resident is not None and not re.fullmatch(r"[0-9a-f]{32}", resident):
        raise click.UsageError("RESIDENT must be 32 lower-case hex digits")
    with parts(config) as (_, engine, vault):
        if resident is None:
            count = erase_again(engine, vault, folder, _now())
            click.echo(f"{count} residents are erased, as the log says")
            return
        entry = erase(engine, vault, resident, _now())
    click.echo(f"erased; entry {entry.id} says so in the log")


@click.command("export")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--openings", is_flag=True, help="also what was done, for a contracted auditor")
@click.option("--trail", is_flag=True, help="also what administrators did, for an auditor")
@click.pass_obj
def export(config: Config, folder: Path, openings: bool, trail: bool) -> None:
    """Write the log to a folder that `python -m ledger FOLDER` checks without a database."""
    with parts(config) as (_, engine, vault):
        size = export_log(engine, vault, folder, openings=openings, acts=trail)
    click.echo(f"{size} entries exported to {folder}")


@click.command()
@click.pass_obj
def check(config: Config) -> None:
    """Hold everything in the live database against the entries and the signed log."""
    with parts(config) as (_, engine, vault):
        found = 0
        for fault in check_database(engine, vault):
            click.echo(f"{fault.where}: {fault.what}")
            found += 1
    if found:
        raise click.ClickException(f"{found} things do not hold; stop the worker, keep the files")
    click.echo("everything holds")


COMMANDS = (
    keys, migrate, publish_rules, provider, budget, worker, log_group, erase_resident, export,
    check,
)  # fmt: skip
