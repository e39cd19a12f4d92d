"""What became of the rides of one import, as a line for programs and a table for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

_MEANING = {
    "accepted": "credited to the rider",
    "duplicate": "credited before; nothing was credited twice",
    "unclaimed": "kept until a resident binds this rider",
}


@dataclass(slots=True)
class Tally:
    """Counts of outcomes: every row ends in exactly one of them."""

    rows: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)
    reduction_mg: int = 0
    points: int = 0
    waiting_points: int = 0

    def refuse(self, code: str, reason: str) -> None:
        """Count one rejection; the first reason given for a code is the one that is shown."""
        self.rejected[code] += 1
        self.reasons.setdefault(code, reason)

    def add(self, receipt: dict[str, Any]) -> None:
        """Count the outcomes of a batch."""
        for item in receipt["outcomes"]:
            if item["outcome"] == "rejected":
                self.refuse(item["code"], item["detail"])
                continue
            self.outcomes[item["outcome"]] += 1
            self.reduction_mg += int(item.get("reduction_mg", 0))
            self.points += int(item.get("points", 0))
            self.waiting_points += int(item.get("waiting_points", 0))

    def line(self) -> str:
        """One line of JSON."""
        return orjson.dumps(
            {
                "rows": self.rows,
                **{name: self.outcomes[name] for name in _MEANING},
                "rejected": dict(sorted(self.rejected.items())),
            }
        ).decode()

    def show(self, console: Console, seconds: float) -> None:
        """A table, and a line of sums under it."""
        table = Table("outcome", "rides", "meaning", show_edge=False)
        table.columns[1].justify = "right"
        for name, meaning in _MEANING.items():
            table.add_row(name, f"{self.outcomes[name]:,}", meaning)
        for code, count in self.rejected.most_common():
            table.add_row(f"rejected: {code}", f"{count:,}", self.reasons[code])
        table.add_section()
        table.add_row("rows", f"{self.rows:,}", "")
        console.print(table)
        waiting = (
            f" ({self.waiting_points:,} more wait for a budget)" if self.waiting_points else ""
        )
        console.print(
            f"{self.reduction_mg / 1e6:,.1f} kg CO2e avoided, {self.points:,} points{waiting};"
            f" {seconds:.1f} s, {self.rows / max(seconds, 0.001):,.0f} rides/s",
            highlight=False,
        )
