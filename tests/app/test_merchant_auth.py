"""What a merchant's signature lets in: by any key, or only by one of the merchant's own."""

from __future__ import annotations


def test_a_shop_opens(shop):
    assert shop.left() == 100_000
