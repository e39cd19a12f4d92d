"""Choose: which of the rewards on offer a resident is shown."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from itertools import chain
from typing import NamedTuple

from app.flows.reward.terms import WhyNot, allowed, on_sale, why_not
from app.store.rewards import Offer, Shopper


class Wanted(NamedTuple):
    """Which rewards: of a kind, with a text in their Chinese title, for a district, of a merchant
    (empty: any); only `affordable` ones; or `everything`, also what this resident cannot have."""

    kind: str = ""
    text: str = ""
    district: str = ""
    merchant: str = ""
    affordable: bool = False
    everything: bool = False


class Choice(NamedTuple):
    """A reward and why this resident cannot order a piece of it now; nothing is against it if that
    is empty."""

    offer: Offer
    against: list[WhyNot]


def place(offer: Offer) -> tuple[int, str]:
    """Where an offer stands in the order of prices."""
    return offer.reward.points, offer.reward.id


def choose(
    offers: Sequence[Offer],
    shopper: Shopper,
    wanted: Wanted,
    after: tuple[int, str],
    today: date,
    now: datetime,
) -> Iterator[Choice]:
    """What a resident is shown, by rising price, after a place: what they could have, now or once
    they hold more points."""
    for offer in offers[bisect_right(offers, after, key=place) :]:
        if not _fits(offer, wanted):
            continue
        against = why_not(offer, shopper, 1, today, now)
        codes = {reason.code for reason in against}
        if wanted.everything or not codes or (codes == _PRICE and not wanted.affordable):
            yield Choice(offer, against)


_PRICE = {"INSUFFICIENT_POINTS"}


def next_one(offers: Sequence[Offer], shopper: Shopper, today: date, now: datetime) -> Offer | None:
    """The cheapest reward that a resident may have and cannot pay yet; else the dearest they can
    pay; None if there is nothing for them."""
    first = bisect_right(offers, shopper.points, key=lambda offer: offer.reward.points)
    for at in chain(range(first, len(offers)), range(first - 1, -1, -1)):
        against = chain(on_sale(offers[at], 1, now), allowed(offers[at], shopper, 1, today))
        if next(against, None) is None:
            return offers[at]
    return None


def _fits(offer: Offer, wanted: Wanted) -> bool:
    reward = offer.reward
    return (
        wanted.kind in ("", reward.kind)
        and wanted.text.casefold() in reward.title_zh.casefold()
        and wanted.merchant in ("", offer.merchant_code)
        and (not wanted.district or not reward.districts or wanted.district in reward.districts)
    )
