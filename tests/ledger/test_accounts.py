from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.accounts import Account, AccountKind, Asset
from ledger.errors import Malformed

TOKEN = "0123456789abcdef" * 2


def an_account(kind: AccountKind) -> Account:
    if kind.guarded:
        return Account(kind, TOKEN)
    return Account(kind, "travel.bike_shared" if kind is AccountKind.REDUCTION else "")


@pytest.mark.parametrize("kind", AccountKind)
def test_a_name_is_read_back_as_its_account(kind: AccountKind) -> None:
    account = an_account(kind)
    assert Account.parse(account.name) == account


def test_a_guarded_account_is_stored_under_its_token_and_an_open_one_under_its_name() -> None:
    assert Account(AccountKind.HELD, TOKEN).key == bytes.fromhex(TOKEN)
    assert Account(AccountKind.OWED).key == sha256(b"owed").digest()[:16]


def test_storage_codes_never_change() -> None:
    assert [(kind.value, kind.code) for kind in AccountKind] == [
        ("resident", 1),
        ("held", 2),
        ("debt", 3),
        ("merchant", 4),
        ("budget", 5),
        ("pool", 6),
        ("issuance", 11),
        ("reduction", 12),
        ("redeemed", 13),
        ("expired", 14),
        ("retired", 15),
        ("owed", 16),
        ("settlement", 17),
    ]
    assert [(asset.value, asset.code) for asset in Asset] == [("CO2E", 1), ("POINT", 2)]
    assert [kind.guarded for kind in AccountKind] == [True] * 6 + [False] * 7


@pytest.mark.parametrize(
    "name",
    [
        "",
        ":",
        "resident",
        "resident:",
        f"resident:{TOKEN[:-1]}",
        f"resident:{TOKEN.upper()}",
        f"resident:{TOKEN}\n",
        f"issuance:{TOKEN}",
        "issuance:",
        "reduction",
        "reduction:travel",
        "reduction:Travel.bike",
        "reduction:" + "a.b" * 30,
        f"wallet:{TOKEN}",
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(Malformed):
        Account.parse(name)


@given(st.text())
def test_any_text_is_refused_or_is_the_name(name: str) -> None:
    try:
        account = Account.parse(name)
    except Malformed:
        return
    assert account.name == name
