"""What a provider needs before trying the program out on this machine: a key, and a paid budget.

For demo and test mode; in production an operator registers providers and funds budgets.
"""

from __future__ import annotations

from sqlalchemy import Engine

from app.cli.clock import now
from app.cli.operate import add_provider_key
from app.config import Config
from app.flows.budget import fund_budget
from app.store import budgets, providers
from app.vault import Vault

POINTS = 10_000_000
_REFERENCE = "demo funding"  # counts once, so that a budget that was used up stays so


def provider_key(config: Config, engine: Engine, code: str) -> tuple[str, bytes]:
    """A provider's key id and private key in PEM, registered and kept in the data folder if new."""
    folder = config.data_dir / "providers"
    folder.mkdir(mode=0o700, exist_ok=True)
    pem, named = folder / f"{code}.pem", folder / f"{code}.key-id"
    with engine.begin() as tx:
        providers.add(tx, code, f"{code} (tried out)", now())
        kept = pem.exists() and named.exists()
        key = providers.find_key(tx, named.read_text()) if kept else None
    if key is None or key.provider != code or key.revoked_at is not None:
        pem.unlink(missing_ok=True)  # of another database, or of a start that was cut short
        named.write_text(add_provider_key(engine, code, pem, now()))
    return named.read_text(), pem.read_bytes()


def fund_if_empty(engine: Engine, vault: Vault) -> bool:
    """Fund the general budget, once, if it holds nothing; whether it was empty."""
    with engine.begin() as tx:
        if budgets.balance(tx, budgets.scopes(tx)[budgets.ANY_SCOPE]) > 0:
            return False
    fund_budget(engine, vault, budgets.ANY_SCOPE, POINTS, _REFERENCE, now())
    return True
