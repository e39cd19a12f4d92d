"""Joining through HTTP: the age gate, guardians and their children, privacy notices."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from sqlalchemy import text

from app.flows.privacy import NoticeEditedError, publish_notices
from app.flows.sign_in import CODES_KEPT
from app.flows.tokens import issue_access_token, make
from app.store import notices
from app.store.notices import Notice

ADULT, CHILD = "1990-05", "2016-05"
_keys = count()


@pytest.fixture
def notice(city):
    publish_notices(city.engine, city.clock())
    with city.engine.connect() as tx:
        return notices.published(tx)[0]


@pytest.fixture
def guest(city):
    """guest("amy") is the join token of somebody whom WeChat vouched for."""

    def vouch(name):
        mark = city.vault.mark(f"wechat code login {name}", 32)
        answer = (
            b'{"wechat": {"openid": "o-%s", "session_key": "k", "unionid": ""}}' % name.encode()
        )
        sealed = city.vault.seal_for(f"wechat code {mark.hex()}", answer)
        with city.engine.begin() as tx:
            tx.execute(
                text(
                    "INSERT INTO login_codes VALUES (:mark, :sealed, :now) ON CONFLICT DO NOTHING"
                ),
                {"mark": mark, "sealed": sealed, "now": city.clock()},
            )
        identity = city.vault.subject("wechat openid", f"app o-{name}")
        at = int(city.clock().timestamp())
        return make(city.vault.token, "join", identity.hex(), at, mark.hex())

    return vouch


@pytest.fixture
def join(client, guest, notice):
    def send(name, month=ADULT, **changes):
        body = {
            "birth_month": month,
            "district": "140403",
            "privacy_notice": {"number": notice.number, "digest": notice.digest},
        } | changes
        headers = {"Authorization": f"Bearer {guest(name)}"}
        return client.post("/api/v1/join", json=body, headers=headers)

    return send


@pytest.fixture
def ask(client, city):
    """ask(resident, method, path, body) with a token of that resident's."""

    def send(resident, method, path, body=None):
        token = issue_access_token(city.vault.token, resident, city.clock())
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": f"key-{next(_keys):08d}"}
        return client.open(f"/api/v1/me/{path}", method=method, json=body, headers=headers)

    return send


@pytest.fixture
def rows(city):
    def read(query):
        with city.engine.connect() as tx:
            return [tuple(row) for row in tx.execute(text(query))]

    return read


def ids(rows):
    return [row[0].hex() for row in rows("SELECT id FROM residents ORDER BY joined_at, id")]


def test_who_joins_is_signed_in_and_accepts_the_notice(join, client, rows):
    made = join("amy")
    assert made.status_code == 200
    headers = {"Authorization": f"Bearer {made.json['access_token']}"}
    assert client.get("/api/v1/me/balances", headers=headers).status_code == 200
    assert rows("SELECT number FROM privacy_acceptances") == [(1,)]
    assert rows("SELECT district, minor_until FROM residents") == [("140403", None)]


def test_joining_twice_is_the_same_resident(join, rows):
    assert join("amy").status_code == 200
    assert join("amy", district="140404").status_code == 200
    assert rows("SELECT district FROM residents") == [("140403",)]


def test_two_taps_at_once_make_one_resident(join, app, rows):
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: join("amy").status_code, range(4)))
    assert answers == [200] * 4
    assert len(ids(rows)) == len(rows("SELECT 1 FROM logins")) == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"birth_month": "2026-13"}, "VALIDATION_FAILED"),
        ({"birth_month": "2027-01"}, "VALIDATION_FAILED"),
        ({"birth_month": "1899-12"}, "VALIDATION_FAILED"),
        ({"birth_month": "0000-01"}, "VALIDATION_FAILED"),
        ({"birth_month": "1990-5"}, "VALIDATION_FAILED"),
        ({"district": "110101"}, "VALIDATION_FAILED"),
        ({"privacy_notice": {"number": 1, "digest": "0" * 64}}, "PRIVACY_NOTICE_CHANGED"),
        ({"privacy_notice": {"number": 2, "digest": "0" * 64}}, "PRIVACY_NOTICE_CHANGED"),
        ({"birth_month": CHILD}, "GUARDIAN_NEEDED"),
        ({"birth_month": CHILD, "guardian_code": "00000000"}, "CODE_UNKNOWN"),
    ],
)
def test_who_cannot_join_so_is_told_why_and_nothing_is_kept(join, rows, change, code):
    refused = join("amy", **change)
    assert refused.json["code"] == code
    assert ids(rows) == []


def test_a_login_too_far_back_is_made_anew(join, city, guest, rows, client, notice):
    token = guest("amy")
    with city.engine.begin() as tx:
        tx.execute(text("DELETE FROM login_codes"))  # as the worker does after a while
    assert CODES_KEPT.total_seconds() > 900
    body = {
        "birth_month": ADULT,
        "district": "140403",
        "privacy_notice": {"number": 1, "digest": notice.digest},
    }
    answer = client.post("/api/v1/join", json=body, headers={"Authorization": f"Bearer {token}"})
    assert answer.json["code"] == "WECHAT_CODE_INVALID"
    assert ids(rows) == []


def test_fourteen_is_reached_with_the_month_after_the_birthdays(join, rows):
    assert join("amy", "2012-10").status_code == 200  # 14 since the end of October 2026
    assert join("bob", "2012-11").json["code"] == "GUARDIAN_NEEDED"
    assert len(ids(rows)) == 1


@pytest.fixture
def family(join, ask, rows):
    """A guardian and a child."""
    join("amy")
    (guardian,) = ids(rows)
    made = ask(guardian, "POST", "guardian-codes", {"adult": True})
    typed = made.json["code"][:4].lower() + "-" + made.json["code"][4:]
    assert join("kid", CHILD, guardian_code=typed).status_code == 200
    (child,) = set(ids(rows)) - {guardian}
    return guardian, child


def test_a_child_joins_with_its_guardians_code_once(family, join, rows):
    guardian, _ = family
    assert rows("SELECT minor_until::text, guardian FROM residents WHERE guardian IS NOT NULL") == [
        ("2030-06-01", bytes.fromhex(guardian))
    ]
    assert rows("SELECT * FROM guardian_codes") == []


def test_a_code_answers_for_one_child_and_a_quarter_of_an_hour(join, ask, rows, city):
    join("amy")
    (guardian,) = ids(rows)
    code = ask(guardian, "POST", "guardian-codes", {"adult": True}).json["code"]
    city.clock.move(minutes=16)
    assert join("kid", CHILD, guardian_code=code).json["code"] == "CODE_UNKNOWN"
    code = ask(guardian, "POST", "guardian-codes", {"adult": True}).json["code"]
    assert join("kid", CHILD, guardian_code=code).status_code == 200
    assert join("kit", CHILD, guardian_code=code).json["code"] == "CODE_UNKNOWN"
    assert ask(guardian, "POST", "guardian-codes", {"adult": False}).status_code == 422


def test_a_child_answers_for_nobody(family, ask):
    _, child = family
    refused = ask(child, "POST", "guardian-codes", {"adult": True})
    assert refused.json["code"] == "GUARDIAN_TOO_YOUNG"


def test_a_guardian_sees_and_ends_a_childs_consents_until_it_is_fourteen(family, ask, city, rows):
    guardian, child = family
    with city.engine.begin() as tx:
        tx.execute(text("INSERT INTO providers VALUES ('bikes', 'Bikes', now())"))
    scenario = "travel.bike_shared"
    offers = ask(child, "GET", "consents?provider=bikes").json["items"]
    digest = next(one["text_digest"] for one in offers if one["scenario"] == scenario)
    wish = {"provider": "bikes", "scenario": scenario, "text_digest": digest, "given": True}
    assert ask(child, "PUT", "consents", {"consents": [wish]}).status_code == 200
    (seen,) = ask(guardian, "GET", "children").json["items"]
    assert (seen["child"], seen["until"]) == (child, "2030-06-01")
    assert seen["consents"][0]["withdrawn_at"] is None
    path = f"children/{child}/withdrawals"
    (left,) = ask(guardian, "POST", path, {"provider": "bikes"}).json["items"]
    assert left["consents"][0]["withdrawn_at"]
    assert ask(child, "POST", f"children/{guardian}/withdrawals", {}).status_code == 404
    city.clock.move(days=1300)
    assert ask(guardian, "GET", "children").json["items"] == []
    assert ask(guardian, "POST", path, {}).status_code == 404


def test_a_newer_notice_is_accepted_before_a_new_consent(join, ask, city, rows, client):
    join("amy")
    (amy,) = ids(rows)
    with city.engine.begin() as tx:
        tx.execute(text("INSERT INTO providers VALUES ('bikes', 'Bikes', now())"))
        notices.put(tx, Notice(2, "2" * 64, "新的说明", city.clock()))
    newest = client.get("/api/v1/privacy-notices").json["items"][0]
    assert (newest["number"], newest["text_zh"]) == (2, "新的说明")
    offer = ask(amy, "GET", "consents?provider=bikes").json["items"][0]
    wish = {"provider": "bikes", "given": True} | {
        name: offer[name] for name in ("scenario", "text_digest")
    }
    refused = ask(amy, "PUT", "consents", {"consents": [wish]})
    assert (refused.status_code, refused.json["code"]) == (409, "PRIVACY_NOTICE_CHANGED")
    assert ask(amy, "PUT", "consents", {"consents": [wish | {"given": False}]}).status_code == 200
    accepted = {"number": 2, "digest": "2" * 64}
    assert ask(amy, "PUT", "privacy-notice", accepted).status_code == 200
    assert ask(amy, "PUT", "consents", {"consents": [wish]}).status_code == 200
    assert rows("SELECT number FROM privacy_acceptances ORDER BY number") == [(1,), (2,)]


def test_a_published_notice_is_never_edited(city, notice):
    publish_notices(city.engine, city.clock())
    with city.engine.begin() as tx:
        tx.execute(text("DELETE FROM privacy_acceptances"))
        notices.put(tx, Notice(9, "9" * 64, "x", city.clock()))
        assert notices.put(tx, Notice(9, "8" * 64, "y", city.clock())) == "9" * 64
    assert NoticeEditedError.code == "PRIVACY_NOTICE_EDITED"
