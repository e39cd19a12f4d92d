import shutil
import subprocess
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench.stage import Result


@pytest.mark.parametrize(
    ("unit", "ratio", "worse"),
    [
        ("requests/s", 0.50, False),
        ("requests/s", 0.43, False),
        ("requests/s", 0.42, True),
        ("requests/s", 0.90, False),
        ("µs", 0.57, False),
        ("µs", 0.58, True),
        ("MB", 0.20, False),
    ],
)
def test_a_rate_is_worse_when_it_falls_and_a_time_or_size_when_it_rises(
    unit: str, ratio: float, worse: bool
) -> None:
    before = {"x": {"value": 1, "unit": unit, "floor": 2, "ratio": 0.5}}
    assert bench.is_worse(Result("x", ratio, unit, 1, ratio), before) is worse
    assert not bench.is_worse(Result("new", ratio, unit, 1, ratio), before)


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git to ask")
def test_figures_are_compared_with_those_committed_not_with_those_on_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = tmp_path / "latest.json"
    monkeypatch.setattr(bench, "LATEST", latest)
    assert bench.committed() == {}
    latest.write_text('{"x": {"ratio": 1}}')
    assert bench.committed() == {"x": {"ratio": 1}}
    git = ("git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@test.example")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "Measure"]):
        subprocess.run([*git, *words], check=True)
    latest.write_text('{"x": {"ratio": 2}}')
    assert bench.committed() == {"x": {"ratio": 1}}
