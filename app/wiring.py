"""What a process is made of, put together once at start and handed to whoever needs it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import redis
from flask import Flask, current_app
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Engine

from app.clock import Clock, city_clock
from app.config import Config, ConfigError
from app.flows.process import collect_seldom
from app.store import embedded
from app.store.catalogue import Registry
from app.store.days import Days
from app.store.db import db
from app.store.logins import SignOuts
from app.store.shelf import Shelf
from app.vault import Vault, open_vault
from app.wechat import WeChat, connect

# Connections of a web process. The last one given back is used next: few are, while few are needed.
POOL: Final = {"pool_size": 8, "max_overflow": 8, "pool_use_lifo": True}
_REDIS_TIMEOUT_S = 2


@dataclass(frozen=True, slots=True)
class Wired:
    """The parts: settings, database engine, secrets, Redis, the published catalogue, where days
    lie, who signed out, the rewards on offer, the line to WeChat, the clock."""

    config: Config
    engine: Engine
    vault: Vault
    redis: redis.Redis
    registry: Registry
    days: Days
    sign_outs: SignOuts
    shelf: Shelf
    wechat: WeChat
    clock: Clock


def with_servers(config: Config) -> Config:
    """The settings with every address filled in, starting embedded servers for those missing."""
    if config.database_url is None:
        url, owner = embedded.start_postgres(config.data_dir / "postgres")
        config = replace(config, database_url=url, owner_url=owner)
    if config.redis_url is None:
        config = replace(config, redis_url=embedded.start_valkey(config.data_dir / "valkey"))
    return config


def open_redis(url: str) -> redis.Redis:
    """A client that gives up soon and at once: whoever asks has an answer of their own to a Redis
    that is away."""
    return redis.Redis.from_url(
        url,
        protocol=3,
        socket_timeout=_REDIS_TIMEOUT_S,
        socket_connect_timeout=_REDIS_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


def wire(app: Flask, config: Config, clock: Clock | None = None) -> Wired:
    """Put the parts together and hang them on the app; tests hand in a clock of their own.

    Raises ConfigError.
    """
    if config.database_url is None or config.redis_url is None:
        raise ConfigError("DATABASE_URL or REDIS_URL is not set; `puhui serve` can start its own")
    app.config["SQLALCHEMY_DATABASE_URI"] = config.database_url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = POOL
    db.init_app(app)
    with app.app_context():
        engine = db.engine
    parts = put_together(config, engine, open_redis(config.redis_url), clock)
    app.extensions["puhui"] = parts
    collect_seldom()
    return parts


def put_together(
    config: Config, engine: Engine, shared: redis.Redis, clock: Clock | None = None
) -> Wired:
    """The parts over a database and a Redis that are there."""
    return Wired(
        config=config,
        engine=engine,
        vault=open_vault(config.keys_dir),
        redis=shared,
        registry=Registry(),
        days=Days(),
        sign_outs=SignOuts(),
        shelf=Shelf(),
        wechat=connect(config, shared),
        clock=clock or city_clock(config),
    )


def wired() -> Wired:
    """The parts of the app that handles this request."""
    parts: Wired = current_app.extensions["puhui"]
    return parts
