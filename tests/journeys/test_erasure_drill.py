"""The drill: one of a thousand has done everything a resident can do, and leaves.

Afterwards every column of every row, every file we write, every log line and every Redis key is
searched for whatever could name or tell of them. The other 999 must not feel it, the receipts they
took home must still hold, and they can come back as somebody new.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import chain, count
from secrets import token_bytes, token_hex
from typing import Any
from zipfile import ZipFile

import orjson
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from PIL import Image
from sqlalchemy import text

from app.application import create_app
from app.flows import join as joining
from app.flows.accept import Batch, accept
from app.flows.charge import charge as charging
from app.flows.charge import refund as refunding
from app.flows.check import check_database
from app.flows.consent import open_scenarios, text_digest
from app.flows.enroll import connect, enroll
from app.flows.export import export_log
from app.flows.notify import notify
from app.flows.own import register
from app.flows.partner.apply import Application, apply
from app.flows.partner.contract import agree
from app.flows.partner.decide import decide
from app.flows.partner.staff import new_link_code
from app.flows.partner.stores import put_store, put_till
from app.flows.privacy import publish_notices
from app.flows.public_key import PublicKey
from app.flows.ranking import Rankings
from app.flows.redeem import hold
from app.flows.reward.change import bring
from app.flows.reward.make import make
from app.flows.voucher.use import Scan, use
from app.flows.voucher.void import Ask, void
from app.flows.work import Worker
from app.store import (
    archives,
    batches,
    budgets,
    challenges,
    consents,
    guardians,
    merchants,
    notices,
    premises,
    providers,
)
from app.store.archives import SECTIONS
from app.store.merchants import Contract
from ledger import archive, proof
from ledger.audit import audit
from ledger.proof import Receipt

OTHERS = 999
SUBJECT, PHONE, NICKNAME = "ride-card-5550123", "13955501234", "北风🚲"
DISTRICT, WORDS = "140431", "我在火车站外等了四十分钟"
PLATE = "food.clean_plate"
KEPT_HASHES = ("digest", "pixels")  # evidence stays known by them, so that it counts only once
FILLED_BY_HAND = {
    "binding_codes": "VALUES (:hash, 'bikes', :subject, :now)",
    "binding_disputes": "VALUES (:id, :subject, 'bikes', :other, :star, 'open', :now)",
    "cases": "VALUES (:id, 'fraud', 'resident', :star, '{}', 'open', :now, :now)",
    "subscriptions": "VALUES (:star, 'a-template', 3)",
}
"""Tables whose rows are put in as they are; the others fill by what is done."""
_COLUMNS = {
    "binding_codes": "code, provider, subject, expires_at",
    "binding_disputes": "id, subject, provider, claimant, holder, state, opened_at",
    "cases": "id, kind, rule, resident, facts, state, opened_at, last_at",
    "subscriptions": "resident, template, quota",
}


class Person:
    """Somebody with a phone: signed in by WeChat, through HTTP."""

    def __init__(self, drill: Drill, name: str, district: str = "140403") -> None:
        self.drill, self.name, self.numbers = drill, name, count()
        client, city = drill.client, drill.city
        code = {"code": drill.wechat.login_code(name)}
        opened = client.post("/api/v1/login", json=code).json
        if not opened["joined"]:
            with city.engine.connect() as tx:
                notice = notices.published(tx)[0]
            body = {
                "birth_month": "1990-05",
                "district": district,
                "privacy_notice": {"number": notice.number, "digest": notice.digest},
            }
            headers = {"Authorization": f"Bearer {opened['join_token']}"}
            opened = client.post("/api/v1/join", json=body, headers=headers).json
        self.access, self.refresh = opened["access_token"], opened["refresh_token"]
        self.id = self.ask("GET", "profile").json["resident"]

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.access}"}
        if method == "POST":
            headers["Idempotency-Key"] = f"{self.name}-{next(self.numbers):08d}"
        given = more or {"json": body}
        return self.drill.client.open(f"/api/v1/me/{path}", method=method, headers=headers, **given)

    def do(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        answer = self.ask(method, path, body, **more)
        assert answer.status_code < 300, answer.text
        return answer.json


class Drill:
    """The city, its application, and what is known of one person before they leave."""

    def __init__(self, city: Any, wechat: Any) -> None:
        self.city, self.wechat = city, wechat
        self.client = create_app(city.config, city.clock).test_client()
        self.shared = redis.Redis.from_url(city.config.redis_url, protocol=3)
        rankings = Rankings(city.engine, city.vault, self.shared)
        parts = (city.engine, city.vault, city.sealer, city.clock)
        self.worker = Worker(*parts, rankings=rankings)
        with city.engine.begin() as tx:
            providers.add(tx, "bikes", "Bikes", city.clock())
            register(tx, city.clock())
            budgets.create(tx, token_hex(16), "nothing in it", "food", city.clock())
            self.shop = open_shop(tx, city)
        publish_notices(city.engine, city.clock())

    def report(self, name: str, *acts: dict[str, Any]) -> list[str]:
        city = self.city
        batch = Batch("bikes", name, orjson.dumps(acts), acts)
        made = accept(city.engine, city.vault, city.registry, batch, city.clock())
        return [one["outcome"] for one in orjson.loads(made)["outcomes"]]

    def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        with self.city.engine.connect() as tx:
            return [tuple(row) for row in tx.execute(text(query), values)]

    def tables(self) -> list[str]:
        return [
            name
            for (name,) in self.rows(
                "SELECT table_name FROM information_schema.tables"
                " WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1"
            )
        ]

    def dump(self) -> dict[str, list[str]]:
        """Every row of every table as text, bytes in hex, receipts of batches unpacked."""
        found = {
            name: [row for (row,) in self.rows(f"SELECT t::text FROM {name} t")]
            for name in self.tables()
        }
        with self.city.engine.connect() as tx:
            names = tx.execute(text("SELECT provider, batch_id FROM batches")).all()
            known = [batches.find(tx, *name) for name in names]
        found["batches"] += [one.receipt.decode() for one in known if one]
        return found

    def redis(self) -> str:
        """Every key and value, but for the counters that limit requests, which go in a minute."""
        shown, client = [], self.shared
        for key in client.scan_iter():
            if key.startswith(b"LIMITS:"):
                assert -1 != client.ttl(key) <= 60
                continue
            kind = client.type(key)
            value = {
                b"zset": lambda k: client.zrange(k, 0, -1, withscores=True),
                b"hash": client.hgetall,
                b"set": client.smembers,
                b"list": lambda k: client.lrange(k, 0, -1),
            }.get(kind, client.get)(key)
            shown.append(f"{key!r} {value!r}")
        return "\n".join(shown)


def open_shop(tx: Any, city: Any) -> str:
    """A merchant where points can be spent, with a store `s1`, a till `t1` and an employee."""
    now, key = city.clock(), Ed25519PrivateKey.generate().public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    contact = {"person": "a person", "phone": "0355-2000000"}
    said = Application("noodles", "noodles", "91350100M000100Y43", contact)
    made = apply(tx, city.vault, said, PublicKey("ed25519", der), now).id
    terms = Contract(0, "city", "postpaid", 100, 1_000_000, 0, "terms", now)
    agree(tx, city.vault, "olga", "noodles", None, terms, now)
    decide(tx, city.vault, "olga", "noodles", None, "approve", "in order", now)
    place = {"name": "noodles", "district": "140403", "address": "1", "open": True}
    put_store(tx, made, "s1", place)
    put_till(tx, made, "t1", "s1", is_open=True)
    premises.put_employee(tx, made, "e-1", "manager", active=True)
    return made


def open_reward(tx: Any, city: Any, shop: str) -> str:
    """A reward of that merchant's, for 10 points; its id."""
    now = city.clock()
    terms = {
        "kind": "voucher", "codes": "generated", "title_zh": "面", "title_en": "n", "text_zh": "n",
        "project": "", "points": 10, "per_person": None, "per_day": None, "valid_days": 30,
        "unused": "refund", "opens_at": now - timedelta(days=1),
        "closes_at": now + timedelta(days=99), "districts": None, "from_14": False,
        "min_reduction_mg": 0, "store": None,
    }  # fmt: skip
    made = make(tx, city.vault, shop, "bowl", terms, 9, now)
    bring(tx, "olga", made, "open", "1", "", now)
    return made


def ride(number: int, subject: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"act-{number}",
        "subject": subject,
        "scenario": "travel.bike_shared",
        "occurred_at": "2026-11-22T09:00:00+08:00",
        "quantities": {"distance_km": "2.5"},
    } | changes


def picture() -> bytes:
    made = io.BytesIO()
    pixels = random.Random(1).randbytes(64 * 48 * 3)
    Image.frombytes("RGB", (64, 48), pixels).save(made, "PNG")
    return made.getvalue()


def live_a_full_life(drill: Drill, friend: Person) -> Person:
    """Somebody with rows in every table that knows residents."""
    city, now = drill.city, drill.city.clock()
    trip = {"scenario": "travel.bus_km", "quantities": {"distance_km": "10"}}
    assert drill.report("before", ride(1, SUBJECT, **trip)) == ["unclaimed"]
    star = Person(drill, "star", DISTRICT)
    subject = city.vault.subject("bikes", SUBJECT)
    with city.engine.begin() as tx:
        versions = open_scenarios(city.registry.current(tx), now)
        agreed = {name: one for name, one in versions.items() if name != "travel.bus_km"}
        connect(tx, "bikes", {subject: star.id}, agreed, now)
        texts = {name: text_digest(one) for name, one in versions.items()}
        for source in ("self", "werun"):
            consents.give(tx, source, [bytes.fromhex(star.id)], texts, now)
        child = joining.add_resident(tx, city.vault, "140403", now)
        guardians.put_child(tx, child, star.id, date(2036, 1, 1))
        told = {"points": "5", "reason": WORDS}
        notify(tx, city.vault, star.id, "points.returned", "1", told, now)
        values = {
            "star": bytes.fromhex(star.id), "other": bytes.fromhex(friend.id), "now": now,
            "subject": subject, "hash": token_bytes(32), "id": token_bytes(16),
        }  # fmt: skip
        code, _ = new_link_code(tx, city.vault, drill.shop, "e-1", now)
        for table, rows in FILLED_BY_HAND.items():
            tx.execute(text(f"INSERT INTO {table} ({_COLUMNS[table]}) {rows}"), values)
    outcomes = drill.report(
        "star",
        ride(2, SUBJECT),
        ride(3, SUBJECT, scenario="food.no_cutlery", quantities={"count": "1"}),
        ride(4, SUBJECT, scenario="travel.bus_ride", quantities={"count": "99"}),
    )
    assert outcomes == ["accepted", "accepted", "rejected"]
    drill.worker.step()
    star.do("PUT", "phone", {"code": drill.wechat.phone_code("star", PHONE)})
    today = city.clock().astimezone().date()
    star.do("PUT", "steps", drill.wechat.steps("star", {today: 8000}))
    form = {
        "scenario": PLATE, "occurred_at": "2026-11-22T11:30:00+08:00",
        "quantities": '{"count": "1"}', "photo": (io.BytesIO(picture()), "p.png", "image/png"),
    }  # fmt: skip
    star.do("POST", "reports", data=form, content_type="multipart/form-data")
    missing = {
        "about": "missing", "text": WORDS, "scenario": "travel.bike_shared",
        "occurred_at": "2026-11-22T08:00:00+08:00", "quantities": {"distance_km": "2.5"},
    }  # fmt: skip
    star.do("POST", "appeals", missing)
    with city.engine.begin() as tx:
        goal = {"of": "acts", "at_least": 1, "area": None, "scenarios": []}
        challenge = token_hex(16)
        challenges.add(
            tx, challenge, 202611, {"title_zh": "月", "title_en": "m", "goal": goal}, now
        )
        challenges.bring(tx, challenge, "open", now)
    star.do("POST", f"challenges/{challenge}/join")
    star.do("PUT", "ranking", {"nickname": NICKNAME})
    friend.do("PUT", "ranking", {"nickname": "friend"})
    star.do("POST", "friends", {"code": friend.do("POST", "friend-codes")["code"]})
    star.do("POST", "friend-codes")
    star.do("POST", "staff-link", {"code": code})
    star.do("POST", "guardian-codes", {"adult": True})
    spend(drill, star)
    with city.engine.begin() as tx:
        hold(tx, city.vault, star.id, 25, "order-1", city.clock())
    return star


def spend(drill: Drill, star: Person) -> None:
    """An order whose vouchers are used, voided and kept; and a charge, some of it refunded."""
    city = drill.city
    with city.engine.begin() as tx:
        reward = open_reward(tx, city, drill.shop)
        till = merchants.till(tx, drill.shop, "t1")
    order = star.do("POST", "orders", {"reward": reward, "quantity": 3})["id"]
    used, voided, kept = star.do("POST", f"orders/{order}/confirm")["vouchers"]
    code = star.do("POST", f"vouchers/{used}/code", {})["code"]
    parts = (city.engine, city.vault)
    assert use(*parts, Scan(drill.shop, "use-1", code, till), city.clock())[0].state == "succeeded"
    ask = Ask(drill.shop, "void-1", voided, None, "a test", None)
    assert void(*parts, ask, city.clock())[0].state == "succeeded"
    star.do("POST", f"vouchers/{kept}/code", {})
    shop = merchants.Partner(drill.shop, "noodles", "approved", None)
    code = star.do("POST", "pay-code", {})["code"]
    asked = charging.Asked(shop, "charge-1", code, 10, "t1", None)
    paid = charging.charge(*parts, asked, city.clock()).charge
    assert paid.state == "succeeded", paid.detail
    back = refunding.Asked(shop, "refund-1", "charge-1", 4, "a test", "e-1")
    assert refunding.refund(*parts, back, city.clock())[0].state == "succeeded"


@pytest.fixture
def drill(city, wechat) -> Iterator[Drill]:
    made = Drill(city, wechat)
    yield made
    made.shared.close()


def identifiers(drill: Drill, star: Person) -> dict[str, bytes]:
    """Whatever could name them or tell of them: their own words, and all that is stored as theirs
    but says so only to who has the keys."""
    city = drill.city
    needles = {
        "openid": drill.wechat.openid("star").encode(),
        "session key": drill.wechat.session_key("star").encode(),
        "phone": PHONE.encode(),
        "provider's number": SUBJECT.encode(),
        "nickname": NICKNAME.encode(),
        "words": WORDS.encode(),
        "district": DISTRICT.encode(),
        "access token": star.access.encode(),
        "refresh token": star.refresh.encode(),
    }
    with city.engine.connect() as tx:
        for table in SECTIONS:
            for row in archives.rows(tx, table, star.id):
                for name, value in row.items():
                    if isinstance(value, bytes) and len(value) > 16 and name not in KEPT_HASHES:
                        needles[f"{table}.{name} {value[:4].hex()}"] = value
        for fact in archives.facts(tx, star.id):
            if fact.opening:
                needles[f"opening of {fact.id}"] = fact.opening
    return needles


def found_in(needles: dict[str, bytes], hay: str) -> list[str]:
    """Which are there: as text, as JSON escapes it, in hex, or as Python shows it."""
    found = []
    for name, needle in needles.items():
        if name == "district":  # six digits stand in some random hex by chance
            alone = rf"(?<![0-9a-f]){needle.decode()}(?![0-9a-f])"
            found += [name] if re.search(alone, hay) else []
            continue
        forms = {needle.hex()}
        if name[0] != "o" or name == "openid":
            plain = needle.decode("utf-8", "ignore")
            if plain.encode() == needle:
                forms |= {plain, ascii(plain)[1:-1], repr(needle)[2:-1]}
        if any(form in hay for form in forms):
            found.append(name)
    return found


def test_one_of_a_thousand_leaves_no_trace(drill, capfd, tmp_path):
    city = drill.city
    names = [f"rider-{n}" for n in range(OTHERS - 1)]
    enroll(city.engine, city.vault, city.registry, "bikes", names, "140403", city.clock())
    acts = [ride(1000 + n, name) for n, name in enumerate(names)]
    assert set(drill.report("others", *acts)) == {"accepted"}
    friend = Person(drill, "friend")
    star = live_a_full_life(drill, friend)
    drill.worker.step()

    first = star.do("POST", "archives")
    drill.worker.step()
    packed = star.ask("GET", f"archives/{first['id']}/download").data
    asked = star.do("POST", "erasure")
    entry = star.do("GET", "statement", query_string={"kind": "issue"})["items"][-1]["entry_id"]
    receipt = star.ask("GET", f"entries/{entry}/receipt").data

    with city.engine.connect() as tx:
        empty = [table for table in SECTIONS if not archives.rows(tx, table, star.id)]
    assert empty == [], "the drill says nothing of tables in which the person has no row"
    the_archive_tells_all_of_it(packed, star, city)
    needles = identifiers(drill, star)
    before = drill.dump()
    assert len(found_in(needles, "\n".join(chain(*before.values())))) > 30
    assert star.id in drill.redis()
    standing = others_rows(drill, star)

    star.do("POST", "erasure/confirm", {"confirm_code": asked["confirm_code"]})
    assert star.ask("GET", "balances").json["code"] == "TOKEN_REVOKED"
    again = drill.client.post("/api/v1/login/refresh", json={"refresh_token": star.refresh})
    assert again.status_code == 401
    assert others_rows(drill, star) == standing
    assert star.id not in drill.redis()
    drill.worker.step()
    city.clock.move(hours=2)  # what answers a double tap is kept for half an hour
    drill.worker.step()

    left = {
        table: found
        for table, rows in drill.dump().items()
        if (found := found_in(needles, "\n".join(rows)))
    }
    assert left == {}
    only_the_ledger_knows_the_account(drill, star)
    assert found_in(needles, drill.redis()) == []
    assert star.id not in drill.redis()
    export_log(city.engine, city.vault, tmp_path / "export", openings=True, acts=True)
    for file in [path for path in tmp_path.rglob("*") if path.is_file()]:
        assert found_in(needles, file.read_bytes().decode("latin-1")) == [], file
        assert found_in(needles, file.read_bytes().decode("utf-8", "replace")) == [], file
    out, err = capfd.readouterr()
    assert '"route":"/api/v1/me/erasure/confirm"' in err
    assert found_in(needles, out + err) == []
    assert star.id not in out + err

    report = audit(tmp_path / "export", trusted=city.vault.ring.verifiers)
    assert report.missing == 0
    assert list(check_database(city.engine, city.vault)) == []
    kept = Receipt.parse(receipt)
    assert proof.verify(kept, kept.extra, city.vault.ring.verifiers).origin == report.head.origin

    back = Person(drill, "star")
    assert back.id != star.id
    assert back.do("GET", "balances")["reduction_mg"] == "0"
    assert back.do("GET", "statement")["items"] == []


def the_archive_tells_all_of_it(packed: bytes, star: Person, city: Any) -> None:
    """Every table, opened: what they said and showed is in it, in words."""
    with ZipFile(io.BytesIO(packed)) as zipped:
        files = {name: zipped.read(name) for name in zipped.namelist()}
    manifest, receipts = archive.verify(files, city.vault.ring.verifiers)
    assert manifest.resident == star.id
    assert receipts >= 2
    data = orjson.loads(files["data.json"])
    # the request to leave came later
    assert {name for name, rows in data["tables"].items() if not rows} == {"farewells"}
    assert len([name for name in files if name.startswith("pictures/")]) == 1
    told = files["data.json"].decode()
    for known in (
        star.drill.wechat.openid("star"),
        PHONE,
        NICKNAME,
        WORDS,
        "travel.bus_km",
        "8000",
    ):
        assert known in told, known
    for secret in (star.drill.wechat.session_key("star"), star.access, star.refresh):
        assert secret not in told
    assert star.drill.wechat.openid("friend") not in told


def others_rows(drill: Drill, star: Person) -> dict[str, Any]:
    """A digest of what every table holds of all others; the city's own books may move."""
    columns = drill.rows(
        "SELECT c.table_name, c.column_name FROM information_schema.columns c"
        " JOIN information_schema.tables t USING (table_schema, table_name)"
        " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
        " AND column_name IN ('resident', 'account')"
    )
    digest = "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {} t WHERE {}"
    made = {}
    for table, column in columns:
        mine = f"{column} <> :star" + (" AND account_kind <= 3" if column == "account" else "")
        if table == "friends":
            mine += " AND friend <> :star"
        if table != "open_balances":
            query = digest.format(table, mine)
            made[table] = drill.rows(query, star=bytes.fromhex(star.id))
    assert len(made) > 15
    return made


def only_the_ledger_knows_the_account(drill: Drill, star: Person) -> None:
    """The random number of the account stays where entries, balances and erasure need it."""
    known = {table for table, rows in drill.dump().items() if any(star.id in row for row in rows)}
    assert known <= {"residents", "postings", "balances", "sign_outs", "answers"}
    (row,) = drill.rows(
        "SELECT wrapped_key, district, minor_until, guardian, restricted_at, joined_at = erased_at"
        " FROM residents WHERE id = :id",
        id=bytes.fromhex(star.id),
    )
    assert row == (None, None, None, None, None, True)
