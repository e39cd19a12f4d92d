"""What the law gives residents, through HTTP: correct, restrict, take along, and leave."""

from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import count
from zipfile import ZipFile

import orjson
import pytest
from sqlalchemy import text

from app.flows.archive import LEFT_OUT, OTHERS, SEALED, make_next
from app.flows.enroll import enroll
from app.flows.erase import erase, erase_again, forget_stragglers
from app.flows.export import export_log
from app.flows.notify import notify
from app.flows.redeem import hold
from app.flows.tokens import issue_access_token
from app.store.archives import NO_SECTION, SECTIONS
from ledger import archive
from ledger.audit import audit
from ledger.errors import LedgerError, Refused

NO_ROWS_OF_ONE = {
    "acts": "keyed fingerprints, for two months, that name nobody",
    "sign_outs": "whose tokens ended, for an hour; the log says more",
}
"""Tables that know an account and yet are in no archive, or are not forgotten at once."""


@pytest.fixture
def ask(client, city, rider):
    """ask("POST", "erasure", {...}, key="...") as the rider; `who` for somebody else."""
    numbers = count()

    def send(method, path, body=None, *, key="", who=rider):
        token = issue_access_token(city.vault.token, who, city.clock())
        key = key or f"rights-{next(numbers):08d}"
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
        return client.open(f"/api/v1/me/{path}", method=method, json=body, headers=headers)

    return send


@pytest.fixture
def earned(provider, city, rider, ride):
    """The rider has points, and a receipt for them."""
    assert provider.batch("batch-1", ride(1)).status_code == 200
    city.sealer.seal(city.clock())
    return rider


@pytest.fixture
def one(city):
    """The only row of a query."""

    def read(query, **values):
        with city.engine.connect() as tx:
            return tuple(tx.execute(text(query), values).one())

    return read


@pytest.fixture
def schema(city):
    """Every column of every table: (table, column, type)."""
    query = (
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'public'"
    )
    with city.engine.connect() as tx:
        return [tuple(row) for row in tx.execute(text(query))]


@pytest.fixture
def taken(ask, city):
    """The archive, as the worker makes it: its files by name."""

    def take():
        asked = ask("POST", "archives")
        assert asked.status_code == 202
        assert make_next(city.engine, city.vault, city.registry, city.clock())
        answer = ask("GET", f"archives/{asked.json['id']}/download")
        assert answer.status_code == 200
        with ZipFile(io.BytesIO(answer.data)) as packed:
            return {name: packed.read(name) for name in packed.namelist()}

    return take


def test_where_i_live_can_be_corrected(ask):
    assert ask("GET", "profile").json["district"] == "140403"
    assert ask("PUT", "profile", {"district": "140404"}).json["district"] == "140404"
    assert ask("GET", "profile").json["district"] == "140404"
    assert ask("PUT", "profile", {"district": "110101"}).status_code == 422


def test_whoever_restricts_is_credited_nothing_and_keeps_every_right(ask, provider, ride, me):
    since = ask("POST", "restriction", {"on": True}).json["restricted_at"]
    assert since
    assert ask("POST", "restriction", {"on": True}).json["restricted_at"] == since
    (outcome,) = provider.batch("batch-1", ride(1)).json["outcomes"]
    assert outcome["code"] == "PROCESSING_RESTRICTED"
    assert me("balances").json["reduction_mg"] == "0"
    assert ask("POST", "archives").status_code == 202
    assert ask("POST", "erasure").status_code == 200
    assert ask("POST", "restriction", {"on": False}).json["restricted_at"] is None
    (outcome,) = provider.batch("batch-2", ride(2)).json["outcomes"]
    assert outcome["outcome"] == "accepted"


def test_what_was_to_be_pushed_is_not_after_a_restriction(ask, city, rider, one):
    params = {"points": "1", "date": "2026-12-01"}
    with city.engine.begin() as tx:
        notify(tx, city.vault, rider, "points.expiring", "1", params, city.clock())
        tx.execute(text("UPDATE messages SET push = 'due', push_at = now()"))
    ask("POST", "restriction", {"on": True})
    assert one("SELECT push FROM messages") == ("none",)


@pytest.mark.parametrize("on", ["true", 2, None])
def test_a_restriction_is_on_or_off(ask, on):
    assert ask("POST", "restriction", {"on": on}).status_code == 422


def test_an_archive_is_whole_and_signed(taken, earned, city, ask):
    files = taken()
    manifest, receipts = archive.verify(files, city.vault.ring.verifiers)
    assert (manifest.resident, receipts) == (earned, 1)
    assert files.keys() >= {"README.txt", "data.json", "data.xlsx", archive.MANIFEST}
    data = orjson.loads(files["data.json"])
    assert data["resident"] == earned
    assert data["tables"].keys() == SECTIONS.keys()
    (entry,) = data["entries"]
    assert entry["entry"]["kind"] == "issue"
    assert orjson.loads(entry["opening"]["opening"])["activity"] == "ride-1"
    assert data["tables"]["residents"][0]["district"] == "140403"
    assert "wrapped_key" not in data["tables"]["residents"][0]


def test_a_workbook_takes_what_people_wrote_as_text(taken, city, rider):
    params = {"points": "=1+1", "date": "http://example.com"}
    with city.engine.begin() as tx:
        notify(tx, city.vault, rider, "points.expiring", "1", params, city.clock())
    with ZipFile(io.BytesIO(taken()["data.xlsx"])) as book:
        names = book.namelist()
        sheets = b"".join(book.read(name) for name in names if "worksheets/sheet" in name)
        assert re.findall(rb'sheet name="(\w+)"', book.read("xl/workbook.xml"))[0] == b"statement"
        assert b"=1+1" in book.read("xl/sharedStrings.xml")
    assert b"<f>" not in sheets
    assert not any("hyperlink" in name or "rels/sheet" in name for name in names)


def test_every_table_that_knows_a_resident_is_in_the_archive(schema, city):
    query = """
        SELECT conrelid::regclass::text FROM pg_constraint
        WHERE contype = 'f' AND confrelid = 'residents'::regclass"""
    with city.engine.connect() as tx:
        pointing = set(tx.execute(text(query)).scalars())
    named = {
        table
        for table, column, _ in schema
        if column in {"resident", "account", "subject", "bearer", *OTHERS}
    }
    apart = {*NO_SECTION, *NO_ROWS_OF_ONE, "open_balances"}  # the last has no person's account
    assert (pointing | named) - apart <= SECTIONS.keys()
    assert len(pointing) > 15
    assert not SECTIONS.keys() & apart


_IDS = {
    "resident", "subject", "budget", "merchant", "store", "till", "device", "reward", "order",
    "voucher", "hold", "entry",
}  # fmt: skip


def test_what_is_sealed_is_opened_or_left_out_for_a_reason(schema, city):
    """A bytea that is neither a short id nor a hash of 32 bytes holds something."""
    query = "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
    with city.engine.connect() as tx:
        checks = " ".join(f"{table}: {rule}" for table, rule in tx.execute(text(query)))
    held = {
        (table, column)
        for table, column, kind in schema
        if kind == "bytea"
        and table in SECTIONS
        and column not in {*LEFT_OUT, *OTHERS}
        and not re.search(rf"{table}: CHECK \(\(octet_length\({column}\) = (16|32)\)\)", checks)
    }
    ids = {("residents", "id"), ("balances", "account")} | {
        (table, column) for table, column in held if column in _IDS
    }
    known = {*SEALED, ("unclaimed", "sealed"), ("archives", "sealed"), ("waiting", "entry_id")}
    known |= {("evidence", "report"), ("challenge_members", "challenge")}
    assert held - ids <= known


def test_an_archive_belongs_to_one_and_comes_when_it_is_made(ask, city, earned, provider):
    asked = ask("POST", "archives").json
    assert asked["state"] == "queued"
    path = f"archives/{asked['id']}"
    waiting = ask("GET", f"{path}/download")
    assert (waiting.status_code, waiting.json["code"]) == (409, "ARCHIVE_NOT_READY")
    assert ask("GET", f"{path}", who="0" * 32).status_code == 404
    assert make_next(city.engine, city.vault, city.registry, city.clock())
    assert not make_next(city.engine, city.vault, city.registry, city.clock())
    assert ask("GET", path).json["state"] == "ready"
    assert ask("GET", f"{path}/download", who="0" * 32).status_code == 404
    assert ask("GET", "archives/no-such-id").status_code == 404
    answer = ask("GET", f"{path}/download")
    assert answer.mimetype == "application/zip"
    assert answer.headers["Cache-Control"] == "no-store"


def test_an_archive_lies_sealed_and_goes_after_a_week(ask, city, earned, one):
    path = "archives/" + ask("POST", "archives").json["id"]
    make_next(city.engine, city.vault, city.registry, city.clock())
    (sealed,) = one("SELECT sealed FROM archives")
    assert b"data.json" not in sealed
    city.clock.move(days=7, seconds=1)
    make_next(city.engine, city.vault, city.registry, city.clock())
    assert ask("GET", path).status_code == 404
    assert one("SELECT count(*) FROM archives") == (0,)


def test_asked_for_again_within_the_hour_it_is_the_same_archive(ask, city):
    first = ask("POST", "archives").json["id"]
    assert ask("POST", "archives").json["id"] == first
    city.clock.move(hours=1, seconds=1)
    second = ask("POST", "archives").json["id"]
    assert second != first
    assert ask("GET", f"archives/{first}").status_code == 404


def test_an_archive_that_cannot_be_opened_is_failed_and_not_tried_for_ever(ask, city, rider, one):
    with city.engine.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO phones (resident, digest, sealed, verified_at)"
                " VALUES (:id, :digest, 'no seal', now())"
            ),
            {"id": bytes.fromhex(rider), "digest": bytes(32)},
        )
    asked = ask("POST", "archives").json["id"]
    assert make_next(city.engine, city.vault, city.registry, city.clock())
    assert ask("GET", f"archives/{asked}").json["state"] == "failed"
    assert not make_next(city.engine, city.vault, city.registry, city.clock())
    assert ask("POST", "archives").json["id"] != asked


def test_leaving_is_asked_for_shown_and_confirmed(ask, earned, city, one, client):
    with city.engine.begin() as tx:
        hold(tx, city.vault, earned, 25, "1", city.clock())
    asked = ask("POST", "erasure").json
    assert (asked["points"], asked["held_points"], asked["waiting_points"]) == ("600", "25", "0")
    assert asked["reduction_mg"] == "625000"
    assert one("SELECT count(*) FROM residents WHERE erased_at IS NOT NULL") == (0,)
    done = ask("POST", "erasure/confirm", {"confirm_code": asked["confirm_code"].lower()})
    assert done.status_code == 200
    kinds = "SELECT array_agg(kind ORDER BY arrival) FROM entries WHERE arrival > 0 AND kind IN"
    (moves,) = one(f"{kinds} ('issue', 'hold', 'release', 'adjust', 'subject.erased')")
    assert moves == ["issue", "hold", "release", "adjust", "subject.erased"]
    budget = "SELECT amount::bigint FROM balances WHERE account_kind = 5"
    assert one(budget) == (10_000_000,)
    again = ask("GET", "balances")
    assert (again.status_code, again.json["code"]) == (401, "TOKEN_REVOKED")


def test_only_the_newest_code_confirms_and_only_for_a_while(ask, earned, city, one):
    first = ask("POST", "erasure").json["confirm_code"]
    second = ask("POST", "erasure").json["confirm_code"]
    for wrong in (first, "00000000", "", "x" * 21):
        refused = ask("POST", "erasure/confirm", {"confirm_code": wrong})
        assert refused.status_code in (409, 422)
    city.clock.move(minutes=15, seconds=1)
    refused = ask("POST", "erasure/confirm", {"confirm_code": second})
    assert refused.json["code"] == "ERASURE_CODE_INVALID"
    assert one("SELECT count(*) FROM entries WHERE kind = 'subject.erased'") == (0,)


def test_one_residents_code_confirms_nobody_elses_leaving(ask, earned, city, enrolled):
    code = ask("POST", "erasure").json["confirm_code"]
    ask("POST", "erasure", who=enrolled)
    refused = ask("POST", "erasure/confirm", {"confirm_code": code}, who=enrolled)
    assert refused.json["code"] == "ERASURE_CODE_INVALID"


@pytest.fixture
def enrolled(city, provider):
    """Another resident."""
    parts = (city.engine, city.vault, city.registry, "bikes", ["rider-2"], "140403", city.clock())
    return enroll(*parts)["rider-2"]


def test_leaving_twice_at_once_is_leaving_once(ask, earned, one, app):
    code = ask("POST", "erasure").json["confirm_code"]
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(
                lambda n: ask("POST", "erasure/confirm", {"confirm_code": code}, key=f"tap-{n:05}"),
                range(4),
            )
        )
    assert 200 in {answer.status_code for answer in answers}
    assert {answer.status_code for answer in answers} <= {200, 401, 409}
    assert one("SELECT count(*) FROM entries WHERE kind = 'subject.erased'") == (1,)


def test_whatever_else_they_do_at_the_same_time_leaves_nothing(ask, earned, app, city, schema, one):
    """Seven of their own requests run all the while; none fails, and nothing of them stays."""
    code = ask("POST", "erasure").json["confirm_code"]
    busy = [
        ("PUT", "ranking", {"nickname": "阿伟"}),
        ("POST", "friend-codes", None),
        ("POST", "archives", None),
        ("POST", "restriction", {"on": False}),
        ("POST", "erasure", None),
        ("POST", "appeals", {"about": "correction", "text": "x"}),
        ("GET", "home", None),
    ]

    def keep_on(request):
        method, path, body = request
        seen = set()
        for n in range(200):
            answer = ask(method, path, body, key=f"{path}-{n:08d}")
            seen.add(answer.status_code)
            if answer.status_code == 401:
                break
        return seen

    with ThreadPoolExecutor(len(busy) + 1) as pool:
        others = [pool.submit(keep_on, request) for request in busy]
        done = ask("POST", "erasure/confirm", {"confirm_code": code})
        if done.json.get("code") == "ERASURE_CODE_INVALID":  # they asked anew meanwhile
            erase(city.engine, city.vault, earned, city.clock())
        seen = set().union(*(other.result() for other in others))
    assert max(seen) < 500
    assert 401 in seen
    forget_stragglers(city.engine, city.clock())
    for table, column, _ in schema:
        if column in ("resident", "claimant", "holder", "friend"):
            query = f"SELECT count(*) FROM {table} WHERE {column} = :id"
            assert one(query, id=bytes.fromhex(earned)) == (0,), table


def test_what_a_slow_request_wrote_after_an_erasure_is_forgotten_too(city, rider, one):
    erase(city.engine, city.vault, rider, city.clock())
    with city.engine.begin() as tx:
        tx.execute(
            text("INSERT INTO subscriptions VALUES (:id, 'template', 1, NULL)"),
            {"id": bytes.fromhex(rider)},
        )
    city.clock.move(minutes=1)
    forget_stragglers(city.engine, city.clock())
    assert one("SELECT count(*) FROM subscriptions") == (0,)
    (at,) = one("SELECT erased_at FROM residents")
    assert at < city.clock()


def test_a_restored_database_is_told_whom_the_log_has_erased(city, earned, one, tmp_path):
    """As after a loss: the database knows somebody again whom an export says was erased."""
    with city.engine.connect() as tx:
        row = tx.execute(text("SELECT * FROM residents")).mappings().one()
    erase(city.engine, city.vault, earned, city.clock())
    city.sealer.seal(city.clock())
    export_log(city.engine, city.vault, tmp_path / "export", openings=False)
    assert audit(tmp_path / "export", trusted=city.vault.ring.verifiers).head.size
    with city.engine.begin() as tx:
        tx.execute(
            text(
                "UPDATE residents SET wrapped_key = :wrapped_key, district = :district,"
                " erased_at = NULL WHERE id = :id"
            ),
            dict(row),
        )
    assert erase_again(city.engine, city.vault, tmp_path / "export", city.clock()) == 1
    assert one("SELECT wrapped_key, district FROM residents") == (None, None)
    assert one("SELECT count(*) FROM entries WHERE kind = 'subject.erased'") == (1,)


def test_an_export_that_does_not_hold_erases_nobody(city, earned, one, tmp_path):
    erase(city.engine, city.vault, earned, city.clock())
    city.sealer.seal(city.clock())
    export_log(city.engine, city.vault, tmp_path / "export", openings=False)
    (bundle,) = (tmp_path / "export" / "tile" / "entries").rglob("000.p/*")
    bundle.write_bytes(bundle.read_bytes().replace(earned.encode(), b"f" * 32))
    with pytest.raises(LedgerError):
        erase_again(city.engine, city.vault, tmp_path / "export", city.clock())


def test_nobody_is_erased_who_never_was(city):
    with pytest.raises(Refused):
        erase(city.engine, city.vault, "0" * 32, datetime.now().astimezone())
