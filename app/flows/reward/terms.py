"""Terms: what a reward asks of who wants it, and what of that a resident does not meet."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import NamedTuple

from app.store.rewards import Offer, Shopper


class RewardError(Exception):
    """A reward cannot be made, changed or had so; the code says which rule, the sentence why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class WhyNot(NamedTuple):
    """One reason why a resident cannot have a reward: its code of app.errors.PROBLEMS, and the
    sentence."""

    code: str
    detail: str


def why_not(
    offer: Offer, shopper: Shopper, quantity: int, today: date, now: datetime
) -> list[WhyNot]:
    """Every reason why a resident cannot order so many pieces now; none: it can be ordered."""
    return [
        *on_sale(offer, quantity, now),
        *allowed(offer, shopper, quantity, today),
        *_affordable(offer, shopper, quantity),
    ]


def on_sale(offer: Offer, quantity: int, now: datetime) -> Iterator[WhyNot]:
    """What is against it whoever asks."""
    reward = offer.reward
    if reward.state != "open" or not reward.opens_at <= now < reward.closes_at:
        yield WhyNot("REWARD_NOT_OPEN", "this reward is not open now; its times are on it")
    if offer.merchant_state != "approved":
        yield WhyNot("MERCHANT_SUSPENDED", f"{offer.merchant_code} takes no orders at present")
    if offer.remaining is not None and offer.remaining < quantity:
        yield WhyNot("REWARD_SOLD_OUT", f"of this reward {offer.remaining} piece(s) are left")
    if reward.per_day is not None and offer.sold_today + quantity > reward.per_day:
        left = max(0, reward.per_day - offer.sold_today)
        yield WhyNot(
            "DAY_LIMIT", f"{reward.per_day} piece(s) a day; {left} are left today, more tomorrow"
        )
    if offer.allowance < reward.points * quantity:
        yield WhyNot(
            "ALLOWANCE_EXHAUSTED", f"{offer.merchant_code} can take no more points at present"
        )


def allowed(offer: Offer, shopper: Shopper, quantity: int, today: date) -> Iterator[WhyNot]:
    """What is against it because of who asks, but for the price."""
    reward, had = offer.reward, shopper.had.get(offer.reward.id, 0)
    if reward.per_person is not None and had + quantity > reward.per_person:
        yield WhyNot("PERSON_LIMIT", f"{reward.per_person} piece(s) a person; you have had {had}")
    if reward.districts is not None and shopper.district not in reward.districts:
        yield WhyNot("DISTRICT_NOT_SERVED", "this reward is for residents of other districts")
    if reward.from_14 and shopper.minor_until is not None and shopper.minor_until > today:
        yield WhyNot("AGE_TOO_YOUNG", "this reward is for residents of 14 years or more")
    if shopper.reduction_mg < reward.min_reduction_mg:
        yield WhyNot(
            "STANDING_TOO_LOW",
            f"this reward asks for {reward.min_reduction_mg} mg of carbon avoided;"
            f" you have {shopper.reduction_mg}",
        )


def _affordable(offer: Offer, shopper: Shopper, quantity: int) -> Iterator[WhyNot]:
    price = offer.reward.points * quantity
    if shopper.points < price:
        yield WhyNot("INSUFFICIENT_POINTS", f"this takes {price} points; you hold {shopper.points}")
