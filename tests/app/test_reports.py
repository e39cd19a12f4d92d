"""What residents report with evidence waits for a reviewer, is shown once, and is credited once."""

from __future__ import annotations

import gc
import io
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from warnings import catch_warnings

import orjson
import pytest
from PIL import Image
from sqlalchemy import text

from app import limits
from app.flows import report
from app.flows.consent import text_digest
from app.flows.erase import erase
from app.flows.join import add_resident
from app.flows.own import SourceError, admit
from app.flows.picture import read_picture
from app.flows.report import Claim, ReportError, accept_report
from app.flows.tokens import issue_access_token
from app.flows.work import Worker
from app.limits import Policy
from app.store import consents, reports
from app.store.db import transact

PLATE = "food.clean_plate"
CARTON = "shopping.carton_reuse"
TODAY = 20261127
NOON = "2026-11-27T11:30:00+08:00"
_numbers = count()


@pytest.fixture(scope="session")
def photo():
    """photo(7) is a picture of its own, as a phone makes it."""

    def make(seed: int, kind: str = "JPEG") -> bytes:
        pixels = random.Random(seed).randbytes(64 * 48 * 3)
        into, exif = io.BytesIO(), Image.Exif()
        exif[0x010F] = "secret camera"
        Image.frombytes("RGB", (64, 48), pixels).save(into, kind, exif=exif)
        return into.getvalue()

    return make


class Resident:
    """Somebody who joined five days ago and consents to report some scenarios."""

    def __init__(self, client, city, *scenarios: str) -> None:
        self.client, self.city = client, city
        with city.engine.begin() as tx:
            self.token = add_resident(tx, city.vault, "140403", city.clock())
            tx.execute(
                text("UPDATE residents SET joined_at = joined_at - interval '5 d' WHERE id = :id"),
                {"id": bytes.fromhex(self.token)},
            )
        self.consent(*scenarios)

    def consent(self, *scenarios: str) -> None:
        with self.city.engine.begin() as tx:
            catalogue = self.city.registry.current(tx)
            texts = {name: text_digest(catalogue.in_force(name, TODAY)) for name in scenarios}
            who = [bytes.fromhex(self.token)]
            consents.give(tx, "self", who, texts, self.city.clock())

    def withdraw(self, scenario: str) -> None:
        with self.city.engine.begin() as tx:
            who = bytes.fromhex(self.token)
            consents.withdraw(tx, "self", who, [scenario], self.city.clock())

    @property
    def headers(self) -> dict[str, str]:
        token = issue_access_token(self.city.vault.token, self.token, self.city.clock())
        return {"Authorization": f"Bearer {token}"}

    def get(self, path: str, **query):
        return self.client.get(f"/api/v1/me/{path}", query_string=query, headers=self.headers)

    def report(self, photo=None, key: str = "", **fields):
        form = {
            "scenario": PLATE, "occurred_at": NOON, "quantities": '{"count": "1"}',
        } | fields  # fmt: skip
        form = {name: value for name, value in form.items() if value is not None}
        if isinstance(photo, bytes):
            form["photo"] = (io.BytesIO(photo), "plate.jpg", "image/jpeg")
        elif photo is not None:
            form["photo"] = photo
        headers = self.headers | {"Idempotency-Key": key or f"report-{next(_numbers):08d}"}
        url = "/api/v1/me/reports"
        return self.client.post(url, data=form, headers=headers, content_type="multipart/form-data")


@pytest.fixture
def li(client, city) -> Resident:
    city.clock.move(days=5)
    return Resident(client, city, PLATE, CARTON)


@pytest.fixture
def wang(client, city, li) -> Resident:
    return Resident(client, city, PLATE, CARTON)


@pytest.fixture
def rui(desk):
    return desk("reviewer", name="rui")


def refused(answer) -> tuple[int, str]:
    assert answer.status_code >= 400, answer.text
    return answer.status_code, answer.get_json()["code"]


def test_a_report_waits_and_is_credited_when_a_reviewer_accepts(li, rui, photo):
    made = li.report(photo(1))
    assert made.status_code == 201, made.text
    number = made.get_json()["id"]
    assert made.get_json()["state"] == "waiting"
    assert li.get("balances").get_json()["reduction_mg"] == "0"
    (seen,) = rui.get("reports").get_json()["items"]
    assert (seen["id"], seen["scenario"], seen["photo"]) == (number, PLATE, True)
    assert seen["quantities"] == {"count": "1"}
    picture = rui.get(f"reports/{number}/photo")
    assert (picture.mimetype, picture.headers["Cache-Control"]) == ("image/jpeg", "no-store")
    with Image.open(io.BytesIO(picture.data)) as shown:
        assert shown.size == (64, 48)
    decided = rui.post(f"reports/{number}/accept").get_json()
    assert (decided["outcome"], decided["reduction_mg"]) == ("accepted", "144000")
    assert li.get("balances").get_json()["reduction_mg"] == "144000"
    (mine,) = li.get("reports").get_json()["items"]
    assert (mine["state"], mine["entry_id"]) == ("accepted", decided["entry_id"])
    entry = li.get(f"entries/{mine['entry_id']}").get_json()
    assert entry["calculation"]["provider"] == "self"
    assert entry["calculation"]["activity_id"] == number
    assert rui.get("reports").get_json()["items"] == []


def test_a_refusal_tells_why_and_credits_nothing(li, rui, photo):
    number = li.report(photo(1)).get_json()["id"]
    decided = rui.post(f"reports/{number}/refuse", {"reason": "餐盘未空"}).get_json()
    assert decided == {"outcome": "rejected", "code": "REPORT_REFUSED", "detail": "餐盘未空"}
    (mine,) = li.get("reports").get_json()["items"]
    assert (mine["state"], mine["reason"], mine["entry_id"]) == ("refused", "餐盘未空", None)
    (why,) = li.get("rejections").get_json()["items"]
    assert (why["provider"], why["activity_id"], why["code"]) == ("self", number, "REPORT_REFUSED")
    assert (why["title_zh"], why["detail"]) == ("申报未通过审核", "餐盘未空")
    assert li.get("balances").get_json()["reduction_mg"] == "0"


def test_a_report_is_decided_on_once(li, rui, desk, photo, city):
    number = li.report(photo(1)).get_json()["id"]
    first = rui.post(f"reports/{number}/accept", key="accept-it")
    assert rui.post(f"reports/{number}/accept", key="accept-it").data == first.data
    other = desk("reviewer")
    for path, document in (("accept", None), ("refuse", {"reason": "no"})):
        decided = other.post(f"reports/{number}/{path}", document)
        assert refused(decided) == (409, "REPORT_DECIDED")
    for unknown in ("0" * 32, "nothing"):
        assert other.post(f"reports/{unknown}/accept").status_code == 404
        assert other.get(f"reports/{unknown}/photo").status_code == 404
    with city.engine.connect() as tx:
        told = tx.execute(text("SELECT kind, key FROM messages")).all()
    assert told == [("report.decided", number)]


def test_two_reviewers_at_once_credit_once(li, photo, city):
    number = bytes.fromhex(li.report(photo(1)).get_json()["id"])

    def accept(who):
        def work(tx):
            return accept_report(
                tx, city.vault, city.registry.current(tx), number, who, city.clock()
            )

        try:
            return transact(city.engine, work)["outcome"]
        except ReportError as error:
            return error.code

    with ThreadPoolExecutor(4) as pool:
        found = sorted(pool.map(accept, ["rui", "ann", "bo", "cy"]))
    assert found == ["REPORT_DECIDED"] * 3 + ["accepted"]


def test_the_same_picture_is_refused_from_whomever_in_whatever_form(li, wang, photo):
    assert li.report(photo(1)).status_code == 201
    with Image.open(io.BytesIO(photo(1))) as decoded:
        again = io.BytesIO()
        Image.frombytes("RGB", decoded.size, decoded.tobytes()).save(again, "PNG")
    for who in (li, wang):
        for same in (photo(1), photo(1) + b"more", again.getvalue()):
            assert refused(who.report(same)) == (409, "EVIDENCE_REUSED")
    assert wang.report(photo(2)).status_code == 201


def test_a_picture_stays_known_after_its_resident_was_erased(li, wang, photo, city):
    li.report(photo(1))
    erase(city.engine, city.vault, li.token, city.clock())
    assert refused(wang.report(photo(1))) == (409, "EVIDENCE_REUSED")
    with city.engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM reports")).scalar_one() == 0
        kept = tx.execute(text("SELECT report, resident, sealed FROM evidence")).all()
    assert kept == [(None, None, None)]


def test_one_picture_sent_by_many_at_once_is_taken_once(li, wang, photo, city):
    picture = read_picture(city.vault, photo(1))

    def send(who):
        claim = Claim(PLATE, NOON, {"count": "1"})

        def work(tx):
            catalogue = city.registry.current(tx)
            return report.report(tx, city.vault, catalogue, who.token, claim, picture, city.clock())

        try:
            return transact(city.engine, work).state
        except ReportError as error:
            return error.code

    with ThreadPoolExecutor(4) as pool:
        found = sorted(pool.map(send, [li, wang] * 3))
    assert found == ["EVIDENCE_REUSED"] * 5 + ["waiting"]


def test_a_code_is_shown_once_in_a_scenario(li, wang):
    code = {"scenario": CARTON, "code": "包裹 SF-1234567890 ✓"}
    assert li.report(**code).status_code == 201
    for who in (li, wang):
        assert refused(who.report(**code)) == (409, "EVIDENCE_REUSED")
    assert wang.report(scenario=CARTON, code="SF-2").status_code == 201


def test_a_double_tap_is_one_report_though_the_form_differs(li, photo):
    first = li.report(photo(1), key="double-tap")
    again = li.report(photo(1), key="double-tap")
    assert (again.status_code, again.data) == (201, first.data)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert refused(li.report(photo(2), key="double-tap")) == (422, "IDEMPOTENCY_KEY_REUSED")
    other = li.report(photo(1), key="double-tap", occurred_at="2026-11-27T11:31:00+08:00")
    assert refused(other) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert len(li.get("reports").get_json()["items"]) == 1


def test_what_is_stored_shows_nothing_without_the_residents_key(li, photo, city):
    li.report(photo(1))
    li.report(scenario=CARTON, code="SF-1234567890")
    with city.engine.connect() as tx:
        rows = tx.execute(text("SELECT sealed FROM reports UNION ALL SELECT sealed FROM evidence"))
        stored = b"".join(row[0] or b"" for row in rows)
    for trace in (b"secret", b"SF-1234567890", b"count", b"\xff\xd8\xff", b"JFIF", b"2026-11"):
        assert trace not in stored


UNFIT = [
    ({"scenario": "food.none"}, (422, "UNKNOWN_SCENARIO")),
    ({"scenario": "travel.bike_shared", "quantities": '{"distance_km": "2"}'},
     (422, "NOT_REPORTABLE")),
    ({"scenario": "housing.stairs"}, (422, "SCENARIO_DISABLED")),
    ({"scenario": CARTON}, (422, "EVIDENCE_MISSING")),
    ({"scenario": "travel.car_stop",
      "quantities": '{"days": "1", "driven_km": "0", "barred_by_plate": "no"}'},
     (422, "CONSENT_MISSING")),
    ({"occurred_at": "2026-11-28T00:00:00+08:00"}, (422, "IN_FUTURE")),
    ({"occurred_at": "2026-11-21T23:59:00+08:00"}, (422, "TOO_LONG_AGO")),
    ({"occurred_at": "yesterday"}, (422, "TIME_MALFORMED")),
    ({"occurred_at": "\x00"}, (422, "TIME_MALFORMED")),
    ({"quantities": '{"count": "2"}'}, (422, "QUANTITY_TOO_LARGE")),
    ({"quantities": '{"count": 1}'}, (422, "QUANTITY_MALFORMED")),
    ({"quantities": '{"count": "1", "餐": "1"}'}, (422, "QUANTITY_UNKNOWN")),
    ({"quantities": "[1]"}, (422, "QUANTITY_MALFORMED")),
    ({"quantities": "one plate"}, (400, "JSON_MALFORMED")),
    ({"quantities": '{"count": "1", "count": "1"}'}, (400, "JSON_MALFORMED")),
    ({"quantities": None}, (422, "VALIDATION_FAILED")),
    ({"scenario": ""}, (422, "VALIDATION_FAILED")),
    ({"code": "9" * 201}, (422, "VALIDATION_FAILED")),
    ({"note": "吃完了"}, (422, "VALIDATION_FAILED")),
    ({"occurred_at": [NOON, NOON]}, (422, "VALIDATION_FAILED")),
]  # fmt: skip


def test_what_cannot_count_is_refused_at_once(li, photo, city):
    for changes, expected in UNFIT:
        assert (changes, refused(li.report(photo(1), **changes))) == (changes, expected)
    with city.engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM evidence")).scalar_one() == 0


def test_a_photo_is_needed_whole_small_and_once(li, photo):
    assert refused(li.report()) == (422, "EVIDENCE_MISSING")
    assert refused(li.report(b"")) == (422, "PICTURE_UNREADABLE")
    assert refused(li.report(photo(1)[:-300])) == (422, "PICTURE_UNREADABLE")
    assert refused(li.report(bytes(6_000_000))) == (413, "PICTURE_TOO_LARGE")
    assert refused(li.report(bytes(9_000_000))) == (413, "BODY_TOO_LARGE")
    with catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()  # the test client leaves the files of large bodies to the collector
    two = [(io.BytesIO(photo(seed)), "plate.jpg") for seed in (1, 2)]
    assert refused(li.report(photo=two)) == (422, "VALIDATION_FAILED")
    assert refused(li.report(photo="not a file")) == (422, "VALIDATION_FAILED")
    other = {"picture": (io.BytesIO(photo(1)), "plate.jpg")}
    assert refused(li.report(**other)) == (422, "VALIDATION_FAILED")


def test_only_a_form_is_taken_and_what_is_no_form_is_no_crash(li):
    headers = li.headers | {"Idempotency-Key": "form-0001"}
    url = "/api/v1/me/reports"
    for body, kind, expected in (
        (orjson.dumps({"scenario": PLATE}), "application/json", (415, "CONTENT_TYPE")),
        (b"--x\r\nnothing", "multipart/form-data; boundary=x", (422, "VALIDATION_FAILED")),
        (b"", "multipart/form-data", (422, "VALIDATION_FAILED")),
        (b"scenario=%FF%FE", "application/x-www-form-urlencoded", (422, "VALIDATION_FAILED")),
    ):
        answer = li.client.post(url, data=body, headers=headers, content_type=kind)
        assert refused(answer) == expected


def test_nothing_is_taken_without_consent_and_withdrawal_stops_what_waits(li, wang, rui, photo):
    li.withdraw(PLATE)
    assert refused(li.report(photo(1))) == (422, "CONSENT_MISSING")
    number = wang.report(photo(1)).get_json()["id"]
    wang.withdraw(PLATE)
    decided = rui.post(f"reports/{number}/accept").get_json()
    assert (decided["outcome"], decided["code"]) == ("rejected", "CONSENT_MISSING")
    (mine,) = wang.get("reports").get_json()["items"]
    assert mine["state"] == "refused"
    assert wang.get("balances").get_json()["reduction_mg"] == "0"


def test_what_the_rules_refuse_a_reviewer_cannot_credit(li, rui, photo):
    for seed in range(7):  # six meals a day are plausible
        number = li.report(photo(seed)).get_json()["id"]
        decided = rui.post(f"reports/{number}/accept").get_json()
    assert (decided["outcome"], decided["code"]) == ("rejected", "TOO_MANY_ACTS")
    assert li.get("balances").get_json()["reduction_mg"] == str(6 * 144_000)


def test_only_so_many_wait_at_a_time(li, rui, photo, city):
    def send(seed):
        return li.report(photo(seed), occurred_at="2026-11-26T12:00:00+08:00")

    ids = [send(seed).get_json()["id"] for seed in range(report.MAX_WAITING)]
    assert refused(send(99)) == (409, "TOO_MANY_WAITING")
    rui.post(f"reports/{ids[0]}/refuse", {"reason": "模糊"})
    assert send(99).status_code == 201


def test_pages_go_through_all_reports_once(li, rui, photo, city):
    ids = []
    for seed in range(5):
        ids.append(li.report(photo(seed)).get_json()["id"])
        if seed % 2:
            city.clock.move(seconds=1)

    def walk(get, path):
        found, cursor = [], {}
        while True:
            page = get(path, limit=2, **cursor).get_json()
            found += [one["id"] for one in page["items"]]
            if not page["has_more"]:
                return found
            cursor = {"cursor": page["next_cursor"]}

    assert sorted(walk(li.get, "reports")) == sorted(walk(rui.get, "reports")) == sorted(ids)
    assert walk(rui.get, "reports")[-1] == ids[-1] == walk(li.get, "reports")[0]
    for get, path in ((li.get, "reports"), (rui.get, "reports"), (rui.get, "step-days")):
        assert refused(get(path, cursor="bm90aGluZw")) == (422, "CURSOR_INVALID")


def test_each_sees_their_own_reports_and_reviewers_do_not_see_whose(li, wang, rui, desk, photo):
    li.report(photo(1))
    assert wang.get("reports").get_json()["items"] == []
    assert li.token not in rui.get("reports").text
    for role in ("operator", "editor", "auditor"):
        assert refused(desk(role).get("reports")) == (403, "ROLE_MISSING")


def test_the_trail_says_who_decided_and_nothing_of_whom(li, rui, photo, city):
    ids = [li.report(photo(seed)).get_json()["id"] for seed in (1, 2)]
    rui.post(f"reports/{ids[0]}/accept")
    rui.post(f"reports/{ids[1]}/refuse", {"reason": "李某的照片"})
    with city.engine.connect() as tx:
        acts = tx.execute(text("SELECT actor, action, target, record FROM trail ORDER BY arrival"))
        kept = acts.all()
    assert [tuple(row)[:3] for row in kept] == [
        ("rui", "report.accepted", ids[0]), ("rui", "report.refused", ids[1]),
    ]  # fmt: skip
    for row in kept:
        assert li.token.encode() not in row.record
        assert "李某".encode() not in row.record


def test_a_picture_is_deleted_half_a_year_after_the_decision_and_stays_known(li, rui, photo, city):
    decided, open_ = (li.report(photo(seed)).get_json()["id"] for seed in (1, 2))
    rui.post(f"reports/{decided}/accept")
    worker = Worker(city.engine, city.vault, city.sealer, city.clock)
    for days, left in ((report.PICTURES_KEPT.days - 1, 2), (2, 1)):
        city.clock.move(days=days)
        worker.step()
        with city.engine.connect() as tx:
            kept = tx.execute(text("SELECT report FROM evidence WHERE sealed IS NOT NULL"))
            assert len(kept.all()) == left
    with city.engine.connect() as tx:
        assert reports.picture(tx, bytes.fromhex(open_))
    now = city.clock().isoformat()
    assert refused(li.report(photo(1), occurred_at=now)) == (409, "EVIDENCE_REUSED")


def test_pictures_are_looked_at_only_so_often(li, photo, monkeypatch):
    monkeypatch.setattr(limits, "PICTURES", Policy("pictures-in-test", 2))
    for _ in range(2):
        assert refused(li.report(b"no picture")) == (422, "PICTURE_UNREADABLE")
    assert refused(li.report(b"no picture")) == (429, "TOO_MANY_REQUESTS")
    assert refused(li.report(scenario=CARTON)) == (422, "EVIDENCE_MISSING")


def test_before_anything_is_published_nobody_has_consented(empty):
    with empty.engine.begin() as tx:
        who = add_resident(tx, empty.vault, "140403", empty.clock())
        with pytest.raises(SourceError) as refusal:
            admit(tx, empty.vault, "self", who, PLATE, empty.clock())
    assert refusal.value.code == "CONSENT_MISSING"


def test_residents_are_asked_only_for_what_can_come_from_themselves(li):
    offered = {
        (source["provider"], one["scenario"]): source["state"]
        for one in li.get("consents").get_json()["items"]
        for source in one["providers"]
    }
    assert offered["self", PLATE] == offered["self", CARTON] == "given"
    assert offered["werun", "travel.walk_steps"] == "none"
    assert [one for one in offered if one[0] == "werun"] == [("werun", "travel.walk_steps")]
    assert ("self", "travel.walk_steps") not in offered
    assert ("self", "travel.bike_shared") not in offered
