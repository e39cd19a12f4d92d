"""Whose address a request counts against, with and without reverse proxies of ours in front."""

from __future__ import annotations

import dataclasses
from itertools import count

import pytest

from app.application import create_app
from app.config import ConfigError, read_config

_senders = count(1)


@pytest.fixture
def left(config):
    """What a request, sent through so many proxies, leaves of its sender's window."""

    def ask(proxies: int, forwarded: str) -> int:
        client = create_app(dataclasses.replace(config, proxies=proxies)).test_client()
        answer = client.get("/log/keys", headers={"X-Forwarded-For": forwarded})
        return int(answer.headers["RateLimit"].partition("r=")[2])

    return ask


def test_a_proxy_of_ours_says_who_asks_and_what_the_sender_claims_is_not_believed(left):
    sender = f"2001:db8::{next(_senders)}"
    first = left(1, sender)
    assert left(1, f"10.0.0.1, {sender}") == first - 1
    assert left(1, f"{sender}, 2001:db8::ffff") != first - 2
    assert left(2, f"{sender}, 10.0.0.1") == first - 2


def test_without_proxies_the_header_is_only_a_claim(left):
    assert left(0, "2001:db8::1:1") == left(0, "2001:db8::1:2") + 1


@pytest.mark.parametrize("given", ["-1", "x", "10", "", "１"])
def test_a_number_of_proxies_that_cannot_be_is_refused(given):
    with pytest.raises(ConfigError, match="PUHUI_PROXIES"):
        read_config({"PUHUI_PROXIES": given})
    assert read_config({"PUHUI_PROXIES": "2"}).proxies == 2
