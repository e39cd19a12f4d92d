"""Settings: read once from the environment, checked, and frozen.

A setting that protects something has no default: outside demo and test mode the program refuses to
start without its keys and its database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from zoneinfo import ZoneInfo

CITY_ZONE = ZoneInfo("Asia/Shanghai")  # every business date in the product is a day of this zone
WECHAT_BASE = "https://api.weixin.qq.com"
NOTICE_DAYS = 7  # between publishing a rule and its first day; our own choice, no source names one


class ConfigError(Exception):
    """A setting is missing or out of its bounds; the sentence names the variable and the remedy."""

    code = "CONFIG"


class Mode(StrEnum):
    """What the process is for. Sandbox login and enrolment exist only outside production."""

    PRODUCTION = "production"
    DEMO = "demo"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one process.

    `database_url` and `owner_url` are None when the embedded PostgreSQL in `data_dir` is to be
    used, `redis_url` when the embedded Valkey is. `head_file` is the copy of the last checkpoint
    that lives outside the database and catches a restored backup. `proxies` is how many reverse
    proxies of ours stand in front: that many X-Forwarded-For values are believed, from the right.
    `notice_days` is how many whole days lie between publishing a scenario version and its first.
    `wechat_app_id` and `wechat_secret` are the mini-program's; without them nobody can log in.
    `webhook_loopback` lets a sandbox's webhooks go to this machine, over http too. `threads` is how
    many requests a web process works on at once, and `intake` how many batches besides, each in a
    process of its own.
    """

    mode: Mode
    data_dir: Path
    keys_dir: Path
    head_file: Path
    log_origin: str
    database_url: str | None
    owner_url: str | None
    redis_url: str | None
    proxies: int = 0
    notice_days: int = NOTICE_DAYS
    wechat_base: str = WECHAT_BASE
    wechat_app_id: str = ""
    wechat_secret: str = field(default="", repr=False)
    webhook_loopback: bool = False
    threads: int = 4
    intake: int = 1

    @property
    def sandbox(self) -> bool:
        """Whether sandbox login and enrolment may exist in this process."""
        return self.mode is not Mode.PRODUCTION


def read_config(environ: Mapping[str, str]) -> Config:
    """Build the settings from environment variables. Raises ConfigError."""
    database_url = environ.get("DATABASE_URL")
    # A real database makes it production unless somebody says otherwise; with none, it is a demo.
    default = Mode.PRODUCTION if database_url else Mode.DEMO
    try:
        mode = Mode(environ.get("PUHUI_MODE", default))
    except ValueError:
        raise ConfigError(
            f"PUHUI_MODE is {environ['PUHUI_MODE']!r}; set it to production, demo or test"
        ) from None
    data_dir = Path(environ.get("PUHUI_DATA", ".data")).absolute()
    redis_url = environ.get("REDIS_URL")
    origin = environ.get("PUHUI_LOG_ORIGIN")
    if mode is Mode.PRODUCTION:
        for name in ("DATABASE_URL", "REDIS_URL", "PUHUI_LOG_ORIGIN", "PUHUI_KEYS"):
            if not environ.get(name):
                raise ConfigError(f"{name} is not set; production needs it and has no default")
    if bool(environ.get("WECHAT_APP_ID")) != bool(environ.get("WECHAT_APP_SECRET")):
        raise ConfigError("WECHAT_APP_ID and WECHAT_APP_SECRET belong together; set both or none")
    return Config(
        mode=mode,
        data_dir=data_dir,
        keys_dir=Path(environ.get("PUHUI_KEYS", str(data_dir / "keys"))).absolute(),
        head_file=Path(environ.get("PUHUI_HEAD_FILE", str(data_dir / "head"))).absolute(),
        log_origin=origin or "puhui.example/changzhi-demo",
        database_url=_psycopg(database_url),
        owner_url=_psycopg(environ.get("DATABASE_OWNER_URL")),
        redis_url=redis_url,
        proxies=_number(environ, "PUHUI_PROXIES", 0, 9, "the number of proxies"),
        notice_days=_number(environ, "PUHUI_NOTICE_DAYS", NOTICE_DAYS, 365, "whole days of notice"),
        wechat_base=environ.get("WECHAT_API_BASE", WECHAT_BASE).rstrip("/"),
        wechat_app_id=environ.get("WECHAT_APP_ID", ""),
        wechat_secret=environ.get("WECHAT_APP_SECRET", ""),
        webhook_loopback=_loopback(environ, mode),
        threads=max(1, _number(environ, "PUHUI_THREADS", 4, 64, "threads of a web process")),
        intake=max(1, _number(environ, "PUHUI_INTAKE", 1, 16, "batch processes of a web process")),
    )


def _loopback(environ: Mapping[str, str], mode: Mode) -> bool:
    given = environ.get("PUHUI_WEBHOOK_LOOPBACK") or "0"
    if given not in ("0", "1"):
        raise ConfigError(f"PUHUI_WEBHOOK_LOOPBACK is {given!r}; set it to 0 or 1")
    if given == "1" and mode is Mode.PRODUCTION:
        raise ConfigError(
            "PUHUI_WEBHOOK_LOOPBACK is set; production sends webhooks to public addresses only"
        )
    return given == "1"


def _number(environ: Mapping[str, str], name: str, default: int, most: int, what: str) -> int:
    given = environ.get(name, str(default))
    if not re.fullmatch(r"0|[1-9][0-9]{0,5}", given) or int(given) > most:
        raise ConfigError(f"{name} is {given!r}; set it to {what}, 0 to {most}")
    return int(given)


def _psycopg(url: str | None) -> str | None:
    """SQLAlchemy's spelling of a plain postgresql:// address, so that either form may be given."""
    if url and url.startswith("postgresql://"):
        return "postgresql+psycopg" + url.removeprefix("postgresql")
    return url
