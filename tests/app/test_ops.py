"""The shell: pages, health, metrics, request ids, headers, documents."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import schemathesis


def test_the_landing_page_links_to_everything_and_every_link_answers(client, city):
    page = client.get("/").text
    city.sealer.seal(city.clock())
    links = [part.split('"')[0] for part in page.split('href="')[1:]]
    assert {"/docs", "/registry", "/openapi.json", "/log/checkpoint", "/health/ready"} <= {*links}
    assert {link: status(client, link) for link in links} == dict.fromkeys(links, 200)


def status(client, path: str) -> int:
    with client.get(path) as answer:  # closes the file behind a static answer
        return answer.status_code


def test_pages_fetch_nothing_from_another_host(app, client):
    files = sorted((Path(app.static_folder)).iterdir())
    assert len(files) > 4
    for path in ("/", "/docs", "/registry", *(f"/static/{file.name}" for file in files)):
        with client.get(path) as answer:
            assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_ready_tells_of_the_sealer_and_of_a_missing_schema(client, city):
    ready = client.get("/health/ready")
    assert ready.status_code == 200
    assert int(ready.json["unsealed_entries"]) > 0
    city.sealer.seal(city.clock())
    assert client.get("/health/ready").json["unsealed_entries"] == "0"


def test_the_oldest_unsealed_entry_grows_old(client, city):
    city.clock.move(seconds=90)
    assert int(client.get("/health/ready").json["oldest_unsealed_s"]) >= 90


def test_metrics_hold_the_city_and_the_process(client):
    client.get("/health/live")
    text = client.get("/metrics").text
    assert 'puhui_budget_left_points{scope="*"} 1e+07' in text
    assert 'puhui_requests_total{method="GET",route="/health/live",status="200"} 1.0' in text


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-12345", True), ("no", False), ("a b c d e f", False)]
)
def test_a_sound_request_id_is_echoed_and_another_replaced(client, given, kept):
    shown = client.get("/health/live", headers={"X-Request-Id": given}).headers["X-Request-Id"]
    assert (shown == given) is kept
    assert len(shown) >= 8


def test_the_log_names_route_and_id_but_no_secret(capsys, client, me):
    me("statement", cursor="c2VjcmV0")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    entry = next(line for line in lines if line.get("route") == "/api/v1/me/statement")
    assert entry["status"] == 422
    assert entry.keys() == {
        "event", "level", "timestamp", "method", "route", "status", "ms", "request_id"
    }  # fmt: skip


PAGES = {
    "/verify",
    "/verify.html",
    "/",
    "/docs",
    "/registry",
    "/openapi.json",
    "/static/<filename>",
}  # for people


def test_the_openapi_document_names_every_route_that_is_no_page(app, client):
    spec = client.get("/openapi.json").json
    assert spec["openapi"] == "3.1.0"
    schemathesis.openapi.from_dict(spec).validate()  # by the specification's own schema
    documented = {path.replace("{", "<").replace("}", ">") for path in spec["paths"]}
    routes = {
        re.sub("<(?:[^<>:]+:)?([^<>]+)>", r"<\1>", rule.rule) for rule in app.url_map.iter_rules()
    }
    assert documented == routes - PAGES
    assert routes >= PAGES
    refusal = spec["components"]["responses"]["DEFAULT_ERROR"]["content"]
    assert list(refusal) == ["application/problem+json"]
