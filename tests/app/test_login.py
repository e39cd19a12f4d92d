"""Administrators' login through HTTP: guesses, codes, sessions, passwords."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from urllib.parse import parse_qs, urlsplit

import argon2
import pyotp
import pytest
from sqlalchemy import text

from app import limits
from app.flows import administer, login
from app.limits import Policy
from app.store.db import transact

PASSWORD = "a sound password"
FAILED = (401, "LOGIN_FAILED")
_addresses = count(1)


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """Hashes that cost a thousandth, but in the tests that put the real ones back."""
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(login, "_hasher", hasher)
    monkeypatch.setattr(login, "_NOBODY", hasher.hash("nobody's"))
    return monkeypatch


@pytest.fixture
def ada(city):
    """An operator with a password and an authenticator: ada.code() is what it shows now."""
    made = transact(
        city.engine,
        lambda tx: administer.create(
            tx, city.vault, "cli", "ada", ["operator", "auditor"], city.clock(), PASSWORD
        ),
    )
    (secret,) = parse_qs(urlsplit(made.otpauth).query)["secret"]

    class Ada:
        totp = pyotp.TOTP(secret)

        def code(self, ago: int = 0) -> str:
            return self.totp.at(int(city.clock().timestamp()) - ago)

    return Ada()


@pytest.fixture
def log_in(client, ada) -> Callable:
    """Logs in from an address of the test's own, since one address may not try often."""
    environ = {"REMOTE_ADDR": f"10.0.0.{next(_addresses)}"}

    def send(name="ada", password=PASSWORD, code=None, **more):
        document = {"name": name, "password": password, "code": code or ada.code()} | more
        return client.post("/api/v1/admin/login", json=document, environ_base=environ)

    return send


@pytest.fixture
def ask(client):
    def send(token, path="me", method="GET", document=None):
        headers = {"Authorization": f"Bearer {token}"}
        return client.open(f"/api/v1/admin/{path}", method=method, headers=headers, json=document)

    return send


@pytest.fixture
def acts(city):
    def told():
        with city.engine.connect() as tx:
            rows = tx.execute(text("SELECT actor, action, target FROM trail ORDER BY arrival"))
            return [" ".join(row) for row in rows]

    return told


def code_of(answer):
    return answer.status_code, answer.get_json()["code"]


def test_name_password_and_code_open_a_session(log_in, ask, acts):
    answer = log_in()
    assert answer.status_code == 200
    session = answer.get_json()
    assert session["expires_at"] == "2026-11-23T00:00:00+08:00"
    assert session["idle_minutes"] == 30
    assert session["roles"] == ["auditor", "operator"]
    assert ask(session["token"]).get_json() == {"name": "ada", "roles": ["auditor", "operator"]}
    assert acts() == ["cli admin.added ada", "ada session.began ada"]


def test_whatever_is_wrong_is_answered_alike(log_in, ada, city):
    answers = [log_in(name="nobody"), log_in(password="another password"), log_in(code="000000")]
    for _ in range(3):
        log_in(code="000000")
    answers.append(log_in())  # locked by now
    transact(city.engine, lambda tx: administer.create(
        tx, city.vault, "cli", "olga", ["operator"], city.clock()
    ))  # fmt: skip
    transact(city.engine, lambda tx: administer.disable(tx, "cli", "ada", city.clock()))
    city.clock.move(minutes=16)
    answers.append(log_in())
    assert [code_of(one) for one in answers] == [FAILED] * 5
    assert len({one.get_json()["detail"] for one in answers}) == 1
    assert answers[0].headers["WWW-Authenticate"] == "Bearer"


def test_as_much_work_is_done_for_nobody_as_for_somebody(log_in, cheap, city):
    cheap.undo()
    with city.engine.begin() as tx:
        hashed = {"hashed": login.hash_password(PASSWORD)}
        tx.execute(text("UPDATE admins SET password_hash = :hashed"), hashed)
    done = []
    verify = argon2.PasswordHasher.verify

    def counted(self, hashed, password):
        done.append(argon2.extract_parameters(hashed))
        return verify(self, hashed, password)

    cheap.setattr(argon2.PasswordHasher, "verify", counted)
    log_in(name="nobody")
    log_in(password="another password")
    assert len(done) == 2
    assert done[0] == done[1]
    assert (done[0].type, done[0].memory_cost) == (argon2.Type.ID, 65536)


def test_five_wrong_guesses_lock_a_name_for_a_quarter_of_an_hour(log_in, city, acts):
    for _ in range(5):
        assert code_of(log_in(password="another password")) == FAILED
    assert code_of(log_in()) == FAILED
    city.clock.move(minutes=14, seconds=59)
    assert code_of(log_in()) == FAILED
    city.clock.move(seconds=2)
    assert log_in().status_code == 200
    assert acts()[1:] == ["ada login.locked ada", "ada session.began ada"]


def test_a_right_login_forgives_the_wrong_ones_before_it(log_in, city):
    for _ in range(3):
        for _ in range(4):
            log_in(password="another password")
        city.clock.move(seconds=60)
        assert log_in().status_code == 200


def test_wrong_codes_count_as_wrong_passwords_do(log_in):
    for _ in range(5):
        log_in(code="000000")
    assert code_of(log_in()) == FAILED


def test_guesses_sent_at_once_are_not_more_than_those_sent_in_a_row(app, ada, city, acts):
    guesses = [f"guess number {n}" for n in range(11)] + [PASSWORD]

    def send(password):
        try:
            login.log_in(city.engine, city.vault, "ada", password, ada.code(), city.clock())
        except login.LoginFailedError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        came_in = list(pool.map(send, guesses))
    with city.engine.connect() as tx:
        failures = tx.execute(text("SELECT failures FROM admins")).scalar_one()
    assert came_in == [False] * 12  # the right one came after five wrong ones
    assert failures == 5
    assert Counter(acts())["ada login.locked ada"] == 1


def test_a_code_works_once(log_in, city):
    assert log_in().status_code == 200
    assert code_of(log_in()) == FAILED
    city.clock.move(seconds=30)
    assert log_in().status_code == 200


def test_a_code_works_a_step_early_or_late_but_never_after_a_later_one(log_in, ada, city):
    for ago in (60, -60):
        assert code_of(log_in(code=ada.code(ago))) == FAILED
    assert log_in(code=ada.code(30)).status_code == 200
    assert log_in(code=ada.code(-30)).status_code == 200
    assert code_of(log_in()) == FAILED


def test_the_same_code_at_the_same_time_opens_one_session(ada, city):
    def send(_):
        try:
            parts = (city.engine, city.vault, "ada", PASSWORD, ada.code(), city.clock())
            return bool(login.log_in(*parts))
        except login.LoginFailedError:
            return False

    with ThreadPoolExecutor(4) as pool:
        assert Counter(pool.map(send, range(4))) == {True: 1, False: 3}


def test_an_address_that_tries_too_often_is_asked_to_wait(log_in, monkeypatch):
    assert limits.LOGIN.amount <= 20
    monkeypatch.setattr(limits, "LOGIN", Policy("login", 3))
    answers = [log_in(name=f"nobody-{n}") for n in range(4)]
    assert [code_of(one) for one in answers] == [FAILED] * 3 + [(429, "TOO_MANY_REQUESTS")]
    assert int(answers[3].headers["Retry-After"]) > 0


def test_a_session_ends_when_it_is_idle(log_in, ask, city):
    token = log_in().get_json()["token"]
    for _ in range(3):
        city.clock.move(minutes=29)
        assert ask(token).status_code == 200
    city.clock.move(minutes=30)
    assert code_of(ask(token)) == (401, "SESSION_ENDED")


def test_a_session_ends_after_twelve_hours_however_busy(log_in, ask, city):
    token = log_in().get_json()["token"]
    for _ in range(35):
        city.clock.move(minutes=20)
        assert ask(token).status_code == 200
    city.clock.move(minutes=20)
    assert code_of(ask(token)) == (401, "SESSION_ENDED")


def test_logging_out_ends_the_session(log_in, ask, acts):
    token = log_in().get_json()["token"]
    assert ask(token, "logout", "POST").status_code == 200
    assert code_of(ask(token)) == (401, "SESSION_ENDED")
    assert acts()[-1] == "ada session.ended ada"


@pytest.mark.parametrize("header", ["", "Bearer", "Basic abc", "Bearer ä", "Bearer a b"])
def test_without_a_token_there_is_no_session(client, header):
    answer = client.get("/api/v1/admin/me", headers={"Authorization": header} if header else {})
    assert code_of(answer) == (401, "SESSION_MISSING")


def test_a_token_that_nobody_was_given_opens_nothing(ask):
    assert code_of(ask("A" * 43)) == (401, "SESSION_ENDED")


def test_neither_token_nor_code_secret_nor_password_lies_in_the_database(log_in, ada, city):
    token = log_in().get_json()["token"]
    with city.engine.connect() as tx:
        tables = tx.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        dump = "".join(
            str(row)
            for table in tables.scalars()
            for row in tx.execute(text(f"SELECT t::text FROM {table} t"))
        )
    assert "argon2id" in dump
    for secret in (token, PASSWORD, ada.totp.secret):
        assert secret not in dump
        assert secret.encode().hex() not in dump


def test_a_password_is_changed_by_who_knows_it_and_the_other_sessions_end(log_in, ask, city, acts):
    other = log_in().get_json()["token"]
    city.clock.move(seconds=30)
    mine = log_in().get_json()["token"]
    change = {"current": PASSWORD, "new": "quite another password"}
    assert ask(mine, "password", "POST", change).status_code == 200
    assert ask(mine).status_code == 200
    assert code_of(ask(other)) == (401, "SESSION_ENDED")
    city.clock.move(seconds=30)
    assert code_of(log_in()) == FAILED
    assert log_in(password="quite another password").status_code == 200
    assert "ada password.changed ada" in acts()


def test_a_stolen_session_cannot_guess_the_password(log_in, ask, city):
    token = log_in().get_json()["token"]
    change = {"current": "a wrong password", "new": "quite another password"}
    for _ in range(5):
        assert code_of(ask(token, "password", "POST", change)) == (403, "PASSWORD_WRONG")
    change["current"] = PASSWORD
    assert code_of(ask(token, "password", "POST", change)) == (403, "PASSWORD_WRONG")
    city.clock.move(minutes=15, seconds=1)
    assert ask(token, "password", "POST", change).status_code == 200


@pytest.mark.parametrize(
    "weak", ["too short", "aaaaaaaaaaaaaaaa", "I am Ada, and known", "x" * 129]
)
def test_a_weak_password_is_refused(log_in, ask, weak):
    token = log_in().get_json()["token"]
    change = {"current": PASSWORD, "new": weak}
    assert code_of(ask(token, "password", "POST", change)) == (422, "PASSWORD_WEAK")


def test_an_old_hash_is_renewed_at_the_next_login(log_in, city, cheap):
    cheap.undo()
    stored = text("SELECT password_hash FROM admins")
    with city.engine.connect() as tx:
        assert argon2.PasswordHasher().check_needs_rehash(tx.execute(stored).scalar_one())
    assert log_in().status_code == 200
    with city.engine.connect() as tx:
        assert not argon2.PasswordHasher().check_needs_rehash(tx.execute(stored).scalar_one())
    city.clock.move(seconds=30)
    assert log_in().status_code == 200
