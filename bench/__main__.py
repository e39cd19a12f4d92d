"""Run the benchmarks, print the table, write bench/latest.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import audit, backtest, balance, ingest, quantify, residents, seal
from bench.stage import Result, stage

LATEST = Path(__file__).with_name("latest.json")
CUSTOMERS = 20_000  # a provider
# What the product promises: the least ratio, or (for figures named so) the least rate.
TARGETS = {
    "ingest over HTTP, 2 providers": "ratio ≥ 0.35",
    "seal": "≥ 20 000/s",
    "audit": "≥ 50 000/s",
    "balance read": "ratio ≥ 0.5",
    "quantify": "≥ 100 000/s",
    "backtest": "≥ 16 667/s",  # a million in a minute
    "backtest, memory": "flat",
    "home": "ratio ≥ 0.35",
    "statement page": "ratio ≥ 0.5",
    "entry detail": "ratio ≥ 0.5",
    "receipt": "ratio ≥ 0.5",
    "home, p99": "ratio < 1.5",
    "statement page, p99": "ratio < 1.5",
    "entry detail, p99": "ratio < 1.5",
    "receipt, p99": "ratio < 1.5",
}


def main() -> None:
    """All in one run on one stage, so that every ratio is of the same machine and minute."""
    results: list[Result] = []
    with stage(CUSTOMERS) as made:
        for module in (balance, ingest, seal, audit, quantify, backtest, residents):
            print(f"{module.__name__.removeprefix('bench.')} …", file=sys.stderr)
            results += module.measure(made)
    table = Table("what", "value", "unit", "floor", "ratio", "target")
    for r in results:
        target = TARGETS.get(r.name, "")
        table.add_row(
            r.name, f"{r.value:,.0f}", r.unit, f"{r.floor:,.0f}", f"{r.ratio:.2f}", target
        )
    Console(width=110).print(table)
    figures = {
        r.name: {
            "value": round(r.value),
            "unit": r.unit,
            "floor": round(r.floor),
            "ratio": round(r.ratio, 3),
        }
        for r in results
    }
    LATEST.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
