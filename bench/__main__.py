"""Run the benchmarks, print the table, write bench/latest.json:
`python -m bench [NAME …] [--entries N]`, where the old city of `age` takes so many activities.

Without names all of them run; with names only those, and the other figures stay as they were.
Each ratio stands beside the one last committed, and one that is clearly worse is marked.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import (
    age,
    audit,
    backtest,
    balance,
    charges,
    ingest,
    memory,
    pressure,
    quantify,
    residents,
    seal,
    steps,
)
from bench.stage import Result, stage

PARTS = {
    module.__name__.removeprefix("bench."): module
    for module in (
        balance,
        ingest,
        steps,
        seal,
        audit,
        memory,
        quantify,
        backtest,
        residents,
        charges,
        pressure,
        age,
    )
}
LATEST = Path(__file__).with_name("latest.json")
Figures = dict[str, dict[str, Any]]
SLOWER = 0.15  # a ratio worse by more than this part is marked; less is the machine's mood
CUSTOMERS = 20_000  # a provider
# What the product promises: the least ratio, or (for figures named so) the least rate.
TARGETS = {
    "ingest over HTTP, 2 providers": "ratio ≥ 0.6",
    "ingest, 2 providers to 1": "ratio ≥ 1.4",
    "oldest unsealed, at full load": "ratio ≤ 1",
    "seal": "≥ 20 000/s",
    "audit": "≥ 55 556/s",  # ten million in three minutes
    "audit with openings": "≥ 55 556/s",
    "audit, memory": "flat",
    "audit, new only": "ratio < 0.1",
    "web worker, memory": "< 200 MB",
    "batch process, memory": "< 200 MB",
    "worker, memory": "< 200 MB",
    "export, memory": "< 200 MB",
    "balance read": "ratio ≥ 0.5",
    "quantify": "≥ 100 000/s",
    "backtest": "≥ 16 667/s",  # a million in a minute
    "backtest, memory": "flat",
    "backtest, largest process": "< 200 MB",
    "home": "ratio ≥ 0.35",
    "statement page": "ratio ≥ 0.5",
    "entry detail": "ratio ≥ 0.5",
    "receipt": "ratio ≥ 0.5",
    "read beside a flood, p99": "ratio ≤ 1.5",
    "home, p99": "ratio < 1.5",
    "statement page, p99": "ratio < 1.5",
    "entry detail, p99": "ratio < 1.5",
    "receipt, p99": "ratio < 1.5",
    "charges": "ratio ≥ 0.5",
    "charges, one merchant": "ratio ≥ 0.7",
    "orders, one reward": "ratio ≥ 0.7",
    "charge beside ingestion, p99": "ratio < 20",
    **{f"{name}, aged": "ratio < 1.3" for name in age.THINGS},
}


def main(names: list[str], entries: int = age.ENTRIES) -> None:
    """In one run on one stage, so that every ratio is of the same machine and minute."""
    if unknown := [name for name in names if name not in PARTS]:
        sys.exit(f"there is no {unknown[0]}; name some of {', '.join(PARTS)}, or none for all")
    if "audit" in names and "ingest" not in names:
        names = ["ingest", *names]  # what is audited is what that part has sent
    results: list[Result] = []
    with stage(CUSTOMERS) as made:
        for name in names or PARTS:
            print(f"{name} …", file=sys.stderr)
            sized = (entries,) if name == "age" else ()
            results += PARTS[name].measure(made, *sized)
    before = committed()
    Console(width=120).print(_table(results, before))
    slower = [r.name for r in results if is_worse(r, before)]
    if slower:
        print(f"Worse than committed by more than {SLOWER:.0%}: {', '.join(slower)}.")
    figures = json.loads(LATEST.read_text()) if names else {}
    figures |= {
        r.name: {
            "value": round(r.value),
            "unit": r.unit,
            "floor": round(r.floor),
            "ratio": round(r.ratio, 3),
        }
        for r in results
    }
    LATEST.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


def committed() -> Figures:
    """The figures of the last commit; without git, those on file; without either, none."""
    show = ["git", "show", f"HEAD:./{LATEST.name}"]
    try:
        text = subprocess.run(show, cwd=LATEST.parent, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        text = LATEST.read_bytes() if LATEST.exists() else b"{}"
    figures: Figures = json.loads(text)
    return figures


def is_worse(result: Result, before: Figures) -> bool:
    """Whether the ratio is clearly worse: a rate by falling, a time or a size by rising."""
    old = before.get(result.name, {}).get("ratio")
    if not old:
        return False
    if result.unit.endswith("/s"):
        return result.ratio < old * (1 - SLOWER)
    return result.ratio > old * (1 + SLOWER)


def _table(results: list[Result], before: Figures) -> Table:
    table = Table("what", "value", "unit", "floor", "ratio", "before", "", "target")
    for r in results:
        old = before.get(r.name, {}).get("ratio")
        table.add_row(
            r.name,
            f"{r.value:,.0f}",
            r.unit,
            f"{r.floor:,.0f}",
            f"{r.ratio:.2f}",
            "" if old is None else f"{old:.2f}",
            "worse" if is_worse(r, before) else "",
            TARGETS.get(r.name, ""),
        )
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--entries", type=int, default=age.ENTRIES)
    asked = parser.parse_args()
    main(asked.names, asked.entries)
