"""Change: an operator opens, pauses or closes a reward; its merchant adds to its stock.

    draft -> open <-> paused -> closed, and each of the first three -> closed

Nothing else of an open reward ever changes: who saw it was promised its terms.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from app.flows.once import must_match
from app.flows.reward.terms import RewardError
from app.flows.trail import act
from app.store import rewards, stock

_FROM: Final = {
    "open": ("draft", "paused"),
    "paused": ("open",),
    "closed": ("draft", "open", "paused"),
}
_ACTIONS: Final = {"open": "reward.opened", "paused": "reward.paused", "closed": "reward.closed"}


def bring(
    tx: Connection, actor: str, id: str, state: str, revision: str, reason: str, now: datetime
) -> None:
    """Bring a reward to another state, over the revision that was read; orders that are held stay
    promised. Raises RewardError NOT_FOUND, REWARD_STATE; StaleError."""
    found = rewards.lock(tx, id)
    if found is None:
        raise RewardError("NOT_FOUND", "there is no reward of this id")
    must_match(revision, str(found.revision))
    if found.state not in _FROM[state]:
        raise RewardError(
            "REWARD_STATE",
            f"the reward is {found.state}; to be {state} it must be {' or '.join(_FROM[state])}",
        )
    if state == "open" and found.closes_at <= now:
        raise RewardError("REWARD_STATE", "its last moment is past; make another one")
    rewards.bring(tx, id, state)
    detail = {"merchant": found.merchant, "code": found.code, "points": str(found.points)}
    act(tx, actor, _ACTIONS[state], id, detail | ({"reason": reason} if reason else {}), now)


def add_stock(tx: Connection, merchant: str, code: str, total: int) -> str:
    """Let there be so many pieces of a reward in all; its id. Raises RewardError NOT_FOUND,
    REWARD_STATE, STOCK_REFUSED."""
    found = rewards.lock_own(tx, merchant, code)
    if found is None:
        raise RewardError("NOT_FOUND", "this merchant has no reward of this code")
    if found.state == "closed":
        raise RewardError("REWARD_STATE", "the reward is closed; make another one")
    if found.codes == "pool":
        raise RewardError("STOCK_REFUSED", "the stock of this reward is its codes; upload more")
    if not stock.raise_to(tx, found.id, total):
        raise RewardError(
            "STOCK_REFUSED", "stock only grows: the total must be no less than sold and left now"
        )
    return found.id
