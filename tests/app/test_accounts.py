"""Operators administer administrators; each address is for the roles it names, and no others."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, combinations

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from app.cli.admins import admin_group
from app.flows import administer
from app.store import admins
from app.store.admins import ROLES
from app.store.db import transact

EVERYBODY = set(ROLES)
# Who may ask what. Every address of administrators stands here; login is for those without a role.
ALLOWED = {
    "POST /admin/login": None,
    "POST /admin/logout": EVERYBODY,
    "POST /admin/password": EVERYBODY,
    "GET /admin/me": EVERYBODY,
    "GET /admin/admins": {"operator", "auditor"},
    "POST /admin/admins": {"operator"},
    "GET /admin/admins/<name>": {"operator", "auditor"},
    "PUT /admin/admins/<name>/roles": {"operator"},
    "POST /admin/admins/<name>/disable": {"operator"},
    "POST /admin/admins/<name>/reset": {"operator"},
    "GET /admin/budgets": {"operator"},
    "POST /admin/budgets/<scope>/fund": {"operator"},
    "GET /admin/shadow": {"editor", "reviewer", "operator"},
    "GET /admin/trail": {"auditor"},
    "GET /admin/trail/export": {"auditor"},
    "GET /admin/drafts": EVERYBODY,
    "POST /admin/drafts": {"editor"},
    "GET /admin/drafts/<draft>": EVERYBODY,
    "PUT /admin/drafts/<draft>": {"editor"},
    "PUT /admin/drafts/<draft>/coefficients/<scenario>/<name>": {"editor"},
    "POST /admin/drafts/<draft>/submit": {"editor"},
    "POST /admin/drafts/<draft>/approve": {"reviewer"},
    "POST /admin/drafts/<draft>/reject": {"reviewer"},
    "POST /admin/drafts/<draft>/discard": {"editor"},
    "POST /admin/drafts/<draft>/withdraw": {"editor", "reviewer"},
    "POST /admin/drafts/<draft>/undo": {"editor"},
    "POST /admin/drafts/<draft>/backtest": {"editor"},
    "GET /admin/drafts/<draft>/backtests": EVERYBODY,
    "POST /admin/backtests": {"editor"},
    "GET /admin/backtests": EVERYBODY,
    "GET /admin/backtests/<backtest>": EVERYBODY,
    "GET /admin/settings": {"operator", "auditor"},
    "GET /admin/settings/<setting>": {"operator", "auditor"},
    "PUT /admin/settings/<setting>": {"operator"},
    "GET /admin/appeals": {"reviewer"},
    "GET /admin/appeals/<appeal>": {"reviewer"},
    "POST /admin/appeals/<appeal>/ask": {"reviewer"},
    "POST /admin/appeals/<appeal>/grant": {"reviewer"},
    "POST /admin/appeals/<appeal>/refuse": {"reviewer"},
    "GET /admin/cases": {"reviewer"},
    "GET /admin/cases/<case>": {"reviewer"},
    "POST /admin/cases/<case>/uphold": {"reviewer"},
    "POST /admin/cases/<case>/dismiss": {"reviewer"},
    "GET /admin/merchants": {"operator", "auditor"},
    "GET /admin/merchants/<merchant>": {"operator", "auditor"},
    "POST /admin/merchants/<merchant>/approve": {"operator"},
    "POST /admin/merchants/<merchant>/suspend": {"operator"},
    "POST /admin/merchants/<merchant>/resume": {"operator"},
    "POST /admin/merchants/<merchant>/close": {"operator"},
    "POST /admin/merchants/<merchant>/contracts": {"operator"},
    "POST /admin/merchants/<merchant>/funds": {"operator"},
    "POST /admin/merchants/<merchant>/keys/<key_id>/revoke": {"operator"},
    "GET /admin/rewards": EVERYBODY,
    "GET /admin/rewards/<reward>": EVERYBODY,
    "POST /admin/rewards/<reward>/open": {"operator"},
    "POST /admin/rewards/<reward>/pause": {"operator"},
    "POST /admin/rewards/<reward>/close": {"operator"},
    "GET /admin/bills": {"operator", "auditor"},
    "POST /admin/bills/<merchant>/<day>/pay": {"operator"},
    "GET /admin/settlement": {"operator", "auditor"},
    "GET /admin/webhooks": {"operator", "auditor"},
    "GET /admin/merchants/<merchant>/events": {"operator", "auditor"},
    "GET /admin/merchants/<merchant>/events/<event>": {"operator", "auditor"},
    "POST /admin/merchants/<merchant>/events/<event>/replay": {"operator"},
    "POST /admin/merchants/<merchant>/webhooks/<webhook>/replay": {"operator"},
    "GET /admin/challenges": EVERYBODY,
    "POST /admin/challenges": {"editor"},
    "GET /admin/challenges/<challenge_id>": EVERYBODY,
    "PUT /admin/challenges/<challenge_id>": {"editor"},
    "POST /admin/challenges/<challenge_id>/open": {"reviewer"},
    "POST /admin/challenges/<challenge_id>/close": {"reviewer"},
    "GET /admin/binding-disputes": {"operator"},
    "POST /admin/binding-disputes/<key>/<verdict>": {"operator"},
    "GET /admin/reports": {"reviewer"},
    "GET /admin/reports/<report>/photo": {"reviewer"},
    "POST /admin/reports/<report>/accept": {"reviewer"},
    "POST /admin/reports/<report>/refuse": {"reviewer"},
    "GET /admin/step-days": {"reviewer"},
    "POST /admin/step-days/<held>/accept": {"reviewer"},
    "POST /admin/step-days/<held>/refuse": {"reviewer"},
}


def served(app):
    """Every address of administrators, as "METHOD /admin/..."."""
    return {
        f"{method} {rule.rule.removeprefix('/api/v1')}"
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/v1/admin")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }


def code_of(answer):
    return answer.status_code, answer.get_json()["code"]


@pytest.fixture
def olga(desk):
    return desk("operator", name="olga")


@pytest.fixture
def emil(desk):
    return desk("editor", name="emil")


def test_every_address_lets_in_exactly_who_may_ask_it(app, desk):
    assert served(app) == set(ALLOWED)
    mixes = chain.from_iterable(combinations(ROLES, size) for size in (1, 2, 3))
    desks = [desk(*roles) for roles in mixes]
    for address in served(app):
        method, path = address.split()
        roles = ALLOWED[address]
        path = re.sub("<[^>]+>", "x", path.removeprefix("/admin/"))
        if path in ("login", "logout"):
            continue  # the one needs no role, the other would end what is asked with
        for one in desks:
            answer = one.send(method, path)
            refused = answer.status_code == 403 and answer.get_json()["code"] == "ROLE_MISSING"
            assert refused == roles.isdisjoint(one.admin.roles), (address, one.admin.roles)
            if refused:
                assert min(roles) in answer.get_json()["detail"]
            assert answer.status_code != 401


def test_without_a_session_nothing_is_answered(app, client):
    for address in served(app) - {"POST /admin/login"}:
        method, path = address.split()
        path = re.sub("<[^>]+>", "x", path)
        assert code_of(client.open(f"/api/v1{path}", method=method)) == (401, "SESSION_MISSING")


def test_every_address_says_in_its_document_that_it_needs_a_session(app, client):
    paths = client.get("/openapi.json").get_json()["paths"]
    for address in served(app):
        method, path = address.split()
        path = f"/api/v1{path}".replace("<", "{").replace(">", "}")
        security = paths[path][method.lower()].get("security")
        assert security == (None if path.endswith("login") else [{"admin": []}])


def test_a_post_that_changes_something_has_an_idempotency_key_in_its_document(client):
    paths = client.get("/openapi.json").get_json()["paths"]
    exempt = {"login", "logout", "password"}
    for path, methods in paths.items():
        if not path.startswith("/api/v1/admin/") or path.rpartition("/")[2] in exempt:
            continue
        for method, named in (("post", "Idempotency-Key"), ("put", "If-Match")):
            if method in methods:
                found = {one["name"]: one for one in methods[method].get("parameters", [])}
                assert found[named]["required"], path


def test_an_operator_adds_an_administrator_who_can_then_log_in(olga, client, city):
    answer = olga.post("admins", {"name": "emil", "roles": ["reviewer", "editor"]})
    assert answer.status_code == 200
    made = answer.get_json()
    assert made["roles"] == ["editor", "reviewer"]
    assert re.fullmatch(
        r"otpauth://totp/Puhui:emil\?secret=[A-Z2-7]{32}&issuer=Puhui", made["otpauth"]
    )
    assert len(made["password"]) == 20
    shown = olga.get("admins").get_json()["items"]
    assert [one["name"] for one in shown] == ["emil", "olga"]


def test_the_same_request_again_shows_the_same_secrets_and_adds_nobody(olga):
    new = {"name": "emil", "roles": ["editor"]}
    first = olga.post("admins", new, key="add-emil-1")
    again = olga.post("admins", new, key="add-emil-1")
    assert first.data == again.data
    assert again.headers["Idempotency-Replayed"] == "true"
    assert code_of(olga.post("admins", new)) == (409, "ADMIN_EXISTS")
    other = {"name": "eva", "roles": ["editor"]}
    reused = olga.post("admins", other, key="add-emil-1")
    assert code_of(reused) == (422, "IDEMPOTENCY_KEY_REUSED")


@pytest.mark.parametrize("key", ["", "short", "a" * 65, "with space 1"])
def test_a_post_without_a_sound_key_is_refused(olga, client, key):
    headers = {"Authorization": f"Bearer {olga.token}"} | ({"Idempotency-Key": key} if key else {})
    new = {"name": "emil", "roles": ["editor"]}
    answer = client.post("/api/v1/admin/admins", json=new, headers=headers)
    assert code_of(answer) == (400, "IDEMPOTENCY_KEY_MISSING")


@pytest.mark.parametrize(
    "new",
    [
        {"name": "E", "roles": ["editor"]},
        {"name": "emil\n", "roles": ["editor"]},
        {"name": "emil", "roles": []},
        {"name": "emil", "roles": ["king"]},
        {"name": "emil"},
        {"name": "emil", "roles": ["editor"], "password": "of my own choice"},
    ],
)
def test_an_administrator_without_a_sound_name_or_role_is_refused(olga, new):
    assert code_of(olga.post("admins", new)) == (422, "VALIDATION_FAILED")


def test_nobody_is_called_like_the_command_line(olga):
    answer = olga.post("admins", {"name": "cli", "roles": ["editor"]})
    assert code_of(answer) == (409, "ADMIN_EXISTS")


def test_roles_are_changed_over_what_was_read(olga, emil):
    read = olga.get("admins/emil")
    etag = read.headers["ETag"]
    assert etag == read.get_json()["etag"]
    changed = olga.put("admins/emil/roles", {"roles": ["auditor"]}, match=etag)
    assert changed.get_json()["roles"] == ["auditor"]
    assert changed.headers["ETag"] != etag
    stale = olga.put("admins/emil/roles", {"roles": ["reviewer"]}, match=etag)
    assert code_of(stale) == (412, "REVISION_STALE")
    assert changed.headers["ETag"] in stale.get_json()["detail"]
    blind = olga.put("admins/emil/roles", {"roles": ["reviewer"]})
    assert code_of(blind) == (428, "IF_MATCH_MISSING")
    assert emil.get("trail").status_code == 200  # a role counts from the next request on
    assert code_of(emil.get("shadow")) == (403, "ROLE_MISSING")


def test_nobody_changes_their_own_account(olga, desk):
    desk("operator", name="otto")
    etag = olga.get("admins/olga").headers["ETag"]
    for answer in (
        olga.put("admins/olga/roles", {"roles": list(ROLES)}, match=etag),
        olga.post("admins/olga/disable"),
        olga.post("admins/olga/reset"),
    ):
        assert code_of(answer) == (403, "OWN_ACCOUNT")


def test_what_is_asked_of_nobody_is_refused(olga):
    for answer in (
        olga.get("admins/nobody"),
        olga.put("admins/nobody/roles", {"roles": ["editor"]}, match='"x"'),
        olga.post("admins/nobody/disable"),
        olga.post("admins/nobody/reset"),
    ):
        assert code_of(answer) == (404, "ADMIN_UNKNOWN")


def test_a_disabled_administrator_is_out_at_once_and_a_reset_lets_them_in_anew(olga, emil):
    assert olga.post("admins/emil/disable").get_json()["enabled"] is False
    assert code_of(emil.get("me")) == (401, "SESSION_ENDED")
    assert olga.post("admins/emil/reset").get_json()["name"] == "emil"
    assert olga.get("admins/emil").get_json()["enabled"] is True
    assert code_of(emil.get("me")) == (401, "SESSION_ENDED")  # that session is over for good


def test_there_is_always_an_operator(city, olga, emil):
    with pytest.raises(administer.AdminRefusedError) as refusal:
        transact(city.engine, lambda tx: administer.disable(tx, "cli", "olga", city.clock()))
    assert refusal.value.code == "LAST_OPERATOR"
    etag = administer.roles_revision(["operator"])
    with pytest.raises(administer.AdminRefusedError) as refusal:
        transact(
            city.engine,
            lambda tx: administer.assign(tx, "emil", "olga", ["editor"], etag, city.clock()),
        )
    assert refusal.value.code == "LAST_OPERATOR"


def test_operators_who_disable_each_other_at_once_leave_one(city, desk):
    pairs = (("ann", "bob"), ("bob", "ann"))
    for name, _ in pairs:
        desk("operator", name=name)

    def disable(pair):
        try:
            transact(city.engine, lambda tx: administer.disable(tx, *pair, city.clock()))
        except administer.AdminRefusedError as refusal:
            return refusal.code
        return "done"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(disable, pairs)) == ["LAST_OPERATOR", "done"]
    with city.engine.begin() as tx:
        assert len(admins.lock_operators(tx)) == 1


def test_the_first_administrator_comes_from_the_command_line(city):
    def run(*arguments, said=""):
        return CliRunner().invoke(admin_group, arguments, obj=city.config, input=said)

    added = run("add", "ada", "--role", "operator", "--password-stdin", said="a sound password\n")
    assert added.exit_code == 0, added.output
    assert "otpauth://totp/" in added.output
    asked = run("add", "bob", "--role", "auditor", said="another password\nanother password\n")
    assert asked.exit_code == 0, asked.output
    assert "another password" not in asked.output
    assert run("list").output == "ada  operator\nbob  auditor\n"
    assert run("disable", "bob").exit_code == 0
    assert run("list").output == "ada  operator\nbob  auditor  disabled\n"
    assert run("reset", "bob", "--password-stdin", said="a third password\n").exit_code == 0
    assert run("list").output == "ada  operator\nbob  auditor\n"
    weak = run("add", "eve", "--role", "editor", "--password-stdin", said="short\n")
    assert weak.exception.code == "PASSWORD_WEAK"
    assert run("add", "E!", "--role", "editor", "--password-stdin", said="x" * 20).exit_code == 2
    assert run("disable", "ada").exception.code == "LAST_OPERATOR"
    with city.engine.connect() as tx:
        told = [" ".join(row) for row in tx.execute(text(
            "SELECT actor, action, target FROM trail ORDER BY arrival"
        ))]  # fmt: skip
    assert told == [
        "cli admin.added ada",
        "cli admin.added bob",
        "cli admin.disabled bob",
        "cli admin.reset bob",
    ]


def test_nothing_is_there_by_default(city):
    with city.engine.connect() as tx:
        assert admins.everyone(tx) == []
