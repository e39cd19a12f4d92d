"""Merchants draft rewards, operators open them, and residents see what they may have."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from app.flows.reward import codes
from ledger.buckets import day_number


def code_of(answer):
    return answer.status_code, answer.get_json()["code"]


def reasons(answer):
    return [one["code"] for one in answer.get_json()["why_not"]]


def fields(answer):
    assert answer.status_code == 422, answer.get_json()
    return [one["field"] for one in answer.get_json()["errors"]]


@pytest.fixture
def upload(client):
    """Send a file of codes as a merchant: upload(shop, "pool", b"A001\\n")."""

    def send(shop, code, file, kind="text/csv"):
        path = f"/api/v1/merchant/rewards/{code}/codes"
        headers = shop.headers("POST", path, file)
        return client.post(path, data=file, content_type=kind, headers=headers)

    return send


@pytest.fixture
def operator(desk):
    return desk("operator")


def test_a_merchant_drafts_and_an_operator_opens(draft, shop, operator, buyer, city):
    made = draft()
    assert made.status_code == 200
    reward = made.get_json()
    assert (reward["state"], reward["revision"], reward["remaining"]) == ("draft", 1, "50")
    assert draft().get_json() == reward, "sent again it is the same draft"
    assert buyer().get(f"rewards/{reward['id']}").status_code == 404
    assert draft(points="120").get_json()["revision"] == 2
    path = f"rewards/{reward['id']}"
    assert code_of(operator.post(f"{path}/open", match='"1"')) == (412, "REVISION_STALE")
    assert code_of(operator.post(f"{path}/open")) == (428, "IF_MATCH_MISSING")
    opened = operator.post(f"{path}/open", match='"2"')
    assert (opened.get_json()["state"], opened.headers["ETag"]) == ("open", '"3"')
    (shown,) = buyer().get("rewards").get_json()["items"]
    assert (shown["id"], shown["points"], shown["merchant"]["code"]) == (
        reward["id"],
        "120",
        "noodles",
    )
    assert shop.get("rewards/bowl").get_json() == operator.get(path).get_json()


def test_what_is_open_keeps_its_terms_and_only_stock_grows(draft, on_offer, shop, operator):
    reward = on_offer()
    assert draft().status_code == 200, "the same terms again are no change"
    for change in ({"points": "90"}, {"valid_days": 31}, {"stock": "50", "per_person": 1}):
        assert code_of(draft(**change)) == (409, "REWARD_STATE")
    assert shop.put("rewards/bowl/stock", {"total": "80"}).get_json()["remaining"] == "80"
    assert shop.put("rewards/bowl/stock", {"total": "80"}).get_json()["remaining"] == "80"
    assert code_of(shop.put("rewards/bowl/stock", {"total": "79"})) == (409, "STOCK_REFUSED")
    assert code_of(shop.put("rewards/none/stock", {"total": "79"})) == (404, "NOT_FOUND")
    closed = operator.post(f"rewards/{reward}/close", {"reason": "over"}, match='"2"')
    assert closed.get_json()["state"] == "closed"
    assert code_of(operator.post(f"rewards/{reward}/open", match='"3"')) == (409, "REWARD_STATE")
    assert code_of(shop.put("rewards/bowl/stock", {"total": "99"})) == (409, "REWARD_STATE")


def test_a_paused_reward_is_shown_to_nobody_until_it_is_open_again(on_offer, operator, buyer):
    reward, who = on_offer(), buyer()
    for step, document, listed in (
        ("pause", {"reason": "looked into"}, 0),
        ("open", None, 1),
    ):
        etag = operator.get(f"rewards/{reward}").headers["ETag"]
        assert operator.post(f"rewards/{reward}/{step}", document, match=etag).status_code == 200
        assert len(who.get("rewards").get_json()["items"]) == listed


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"points": "0"}, "points"),
        ({"points": 100}, "points"),
        ({"stock": None}, "stock"),
        ({"codes": "pool"}, "stock"),
        ({"codes": "none"}, "codes"),
        ({"project": "植树"}, "project"),
        ({"kind": "donation", "codes": "none", "stock": None}, "project"),
        ({"kind": "donation", "project": "植树", "stock": None}, "codes"),
        ({"kind": "goods"}, "store"),
        ({"valid_days": 0}, "valid_days"),
        ({"closes_at": "2026-11-01T00:00:00+08:00"}, "closes_at"),
        ({"opens_at": "2026-11-01T00:00:00"}, "opens_at"),
        ({"opens_at": "0001-01-01T00:00:00+14:00"}, "opens_at"),
        ({"districts": ["1404"]}, "districts.0"),
        ({"districts": ["140403", "110101"]}, "districts.1"),
        ({"per_person": 0}, "per_person"),
        ({"title_zh": "两\n行"}, "title_zh"),
        ({"min_reduction_mg": "-1"}, "min_reduction_mg"),
        ({"extra": 1}, "extra"),
    ],
)
def test_terms_that_do_not_fit_are_named(draft, changes, wrong):
    assert wrong in fields(draft(**changes))


def test_goods_name_an_open_store_of_their_merchant(draft, open_shop):
    assert code_of(draft(kind="goods", store="s9")) == (404, "STORE_UNKNOWN")
    made = draft(kind="goods", store="s1").get_json()
    assert made["store"] == "s1"


def test_who_may_draft(draft, open_shop, shop):
    till = shop.key_of("t1")
    assert code_of(draft(shop=till)) == (403, "TILL_NOT_YOURS")
    other = open_shop("tea")
    assert draft(shop=other).get_json()["id"] != draft().get_json()["id"]
    assert [one["code"] for one in other.get("rewards").get_json()["items"]] == ["bowl"]


def test_lists_of_merchants_and_operators_have_pages(draft, shop, operator, open_shop, clock):
    for n in range(5):
        draft(f"r{n}")
        clock.move(seconds=1)
    draft("tea", shop=open_shop("tea"))
    found, cursor = [], {}
    while cursor is not None:
        query = f"rewards?limit=2{cursor and '&cursor=' + cursor}" if cursor else "rewards?limit=2"
        answered = shop.get(query).get_json()
        found += [one["code"] for one in answered["items"]]
        cursor = answered["next_cursor"]
    assert found == ["r4", "r3", "r2", "r1", "r0"]
    assert len(operator.get("rewards").get_json()["items"]) == 6
    of_tea = operator.get("rewards", merchant="tea", state="draft").get_json()["items"]
    assert [one["code"] for one in of_tea] == ["tea"]
    assert operator.get("rewards", state="open").get_json()["items"] == []
    assert operator.get("rewards", merchant="nobody").status_code == 404


def test_codes_of_a_pool_are_stock(draft, on_offer, shop, upload, city):
    draft("pool", codes="pool", stock=None)
    first = upload(shop, "pool", "\ufeffCODE-1\r\nCODE-2\r\n\r\nCODE-3".encode())
    assert first.get_json() == {"lines": 3, "added": 3, "known": 0, "remaining": "3"}
    again = upload(shop, "pool", b"CODE-1\nCODE-2\nCODE-3\n")
    assert again.get_json() == {"lines": 3, "added": 0, "known": 3, "remaining": "3"}
    more = upload(shop, "pool", b"CODE-3\nCODE-4", "text/plain")
    assert more.get_json() == {"lines": 2, "added": 1, "known": 1, "remaining": "4"}
    with city.engine.connect() as tx:
        kept = tx.execute(text("SELECT digest, sealed FROM reward_codes")).all()
    assert len(kept) == 4
    assert not any(b"CODE" in digest + sealed for digest, sealed in kept)
    assert draft("pool", codes="pool", stock=None, points="120").get_json()["remaining"] == "4"


@pytest.mark.parametrize(
    ("file", "lines"),
    [
        (b"GOOD-1\nBAD CODE\nGOOD-2\nx", ["line 2", "line 4"]),
        (b"GOOD-1\nGOOD-2\nGOOD-1", ["line 3"]),
        ("GOOD-1\n券码九".encode(), ["line 2"]),
        (b"GOOD-1\nab\xff", ["line 2"]),
        (b"96123456789012345678", ["line 1"]),
        (b"\n\n", ["line 1"]),
        (b"OTHER-1\nGOOD-1", ["line 1"]),
    ],
)
def test_a_file_of_codes_is_taken_whole_or_not_at_all(draft, shop, upload, file, lines):
    for code, codes_ in (("pool", b""), ("other", b"OTHER-1")):
        draft(code, codes="pool", stock=None)
        if codes_:
            assert upload(shop, code, codes_).status_code == 200
    refused = upload(shop, "pool", file)
    assert code_of(refused) == (422, "CODES_REFUSED")
    assert fields(refused) == lines
    assert shop.get("rewards/pool").get_json()["remaining"] == "0"


def test_only_a_pool_takes_codes_and_only_as_text(draft, shop, upload, open_shop):
    draft()
    assert code_of(upload(shop, "bowl", b"CODE-1")) == (409, "STOCK_REFUSED")
    assert code_of(upload(shop, "none", b"CODE-1")) == (404, "NOT_FOUND")
    assert code_of(upload(shop, "bowl", b"[]", "application/json")) == (415, "CONTENT_TYPE")
    draft("pool", codes="pool", stock=None)
    assert code_of(shop.put("rewards/pool/stock", {"total": "9"})) == (409, "STOCK_REFUSED")
    tea = open_shop("tea")
    draft("pool", codes="pool", stock=None, shop=tea)
    for one in (shop, tea):  # two merchants may bring the same code
        assert upload(one, "pool", b"CODE-1").get_json()["added"] == 1


def test_a_hundred_thousand_codes_are_one_file(draft, shop, upload, monkeypatch):
    draft("pool", codes="pool", stock=None)
    monkeypatch.setattr(codes, "MOST_LINES", 20_000)  # the real bound takes seconds
    whole = "\n".join(f"CODE-{n:06d}" for n in range(20_000))
    assert upload(shop, "pool", whole.encode()).get_json()["remaining"] == "20000"
    assert fields(upload(shop, "pool", f"{whole}\nCODE-9".encode())) == ["line 20001"]


@pytest.fixture
def shelf(on_offer, open_shop):
    """Rewards of 50, 100, 200 and 400 points, the last one of a bookshop."""
    books = open_shop("books")
    return [
        on_offer("cheap", points="50", title_zh="乘车券"),
        on_offer("bowl", points="100", districts=["140404"]),
        on_offer("tree", points="200", title_zh="植树捐赠", **DONATION),
        on_offer("book", points="400", title_zh="图书券", shop=books),
    ]


DONATION = {
    "kind": "donation",
    "codes": "none",
    "project": "太行山绿化",
    "stock": None,
    "unused": "lapse",
}


def test_a_resident_finds_what_they_may_have(shelf, buyer):
    cheap, bowl, tree, book = shelf
    here, there = buyer(150), buyer(150, district="140404")

    def ids(who=here, **query):
        return [one["id"] for one in who.get("rewards", **query).get_json()["items"]]

    assert ids() == [cheap, tree, book]
    assert ids(there) == [cheap, bowl, tree, book]
    assert ids(affordable="true") == [cheap]
    assert ids(all="true") == shelf
    assert ids(kind="donation") == [tree]
    assert ids(q="书") == [book]
    assert ids(q="书", merchant="noodles") == []
    assert ids(merchant="books") == [book]
    assert ids(there, district="140404", all="true") == shelf
    assert ids(district="140403", all="true") == [cheap, tree, book]
    items = here.get("rewards", all="true").get_json()["items"]
    assert [one["missing_points"] for one in items] == ["0", "0", "50", "250"]
    assert [[why["code"] for why in one["why_not"]] for one in items] == [
        [],
        ["DISTRICT_NOT_SERVED"],
        ["INSUFFICIENT_POINTS"],
        ["INSUFFICIENT_POINTS"],
    ]
    assert all(why["title_zh"] for one in items for why in one["why_not"])


def test_a_list_has_pages(shelf, buyer):
    who, found, query = buyer(1000, district="140404"), [], {"limit": 1}
    while True:
        answered = who.get("rewards", **query).get_json()
        found += [one["id"] for one in answered["items"]]
        if not answered["has_more"]:
            break
        query["cursor"] = answered["next_cursor"]
    assert found == shelf
    assert code_of(who.get("rewards", cursor="bm9uZQ")) == (422, "CURSOR_INVALID")
    assert who.get("rewards", affordable="1").status_code == 422


def test_the_whole_of_a_reward(on_offer, buyer, shop):
    reward = on_offer(kind="goods", store="s1", min_reduction_mg="1", from_14=True, per_day=3)
    shown = buyer(10).get(f"rewards/{reward}").get_json()
    assert shown["store"] == {"code": "s1", "name": "一店", "address": "英雄路1号"}
    assert (shown["unused"], shown["valid_days"], shown["per_day"]) == ("refund", 30, 3)
    assert [one["code"] for one in shown["why_not"]] == ["STANDING_TOO_LOW", "INSUFFICIENT_POINTS"]
    assert buyer().get(f"rewards/{'0' * 32}").status_code == 404
    assert buyer().get("rewards/none").status_code == 404


def test_times_merchants_and_allowance_decide_too(on_offer, buyer, desk, clock, open_shop):
    poor = open_shop("poor", points=99)
    early, late = on_offer(), on_offer("poor", shop=poor)
    who = buyer()
    assert reasons(who.get(f"rewards/{late}")) == ["ALLOWANCE_EXHAUSTED"]
    assert [one["id"] for one in who.get("rewards").get_json()["items"]] == [early]
    clock.move(days=400)
    assert reasons(who.get(f"rewards/{early}"))[0] == "REWARD_NOT_OPEN"
    assert who.get("rewards", all="true").get_json()["items"] == []


def test_the_first_screen_names_the_next_reward(shelf, buyer):
    cheap, bowl, tree, book = shelf

    def next_of(points, **more):
        return buyer(points, **more).get("home").get_json()["next_reward"]

    assert next_of(0)["id"] == cheap
    assert next_of(50) == {
        "id": tree,
        "title_zh": "植树捐赠",
        "points": "200",
        "missing_points": "150",
    }
    assert next_of(50, district="140404")["id"] == bowl
    assert next_of(399)["id"] == book
    assert (next_of(400)["id"], next_of(400)["missing_points"]) == (book, "0")


def test_where_nothing_is_on_offer_the_first_screen_says_so(buyer):
    assert buyer().get("home").get_json()["next_reward"] is None


def test_points_that_expired_buy_nothing(on_offer, buyer, clock):
    reward = on_offer()
    who = buyer(100, bucket=day_number(clock().date()))
    assert reasons(who.get(f"rewards/{reward}")) == []
    clock.move(days=1)
    assert reasons(who.get(f"rewards/{reward}")) == ["INSUFFICIENT_POINTS"]
