"""What cities and provinces would need, from what was measured: `python -m bench.simulate`.

The costs are those of bench/latest.json: two cores did that much, with server, database and client
all on them, so one core is taken to do half. Intake is a division. Readers are a queue: so many of
them come at random in the busiest minute, and cores are added until the 99th percentile of what
they wait is at most half as long again as being served alone takes.
"""

from __future__ import annotations

import heapq
import json
import random
from math import ceil
from statistics import quantiles
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from bench.__main__ import LATEST

PEOPLE = (3_000_000, 10_000_000, 50_000_000, 100_000_000)
CITY = 3_000_000  # people of a city with a log of its own
MEASURED_CORES = 2
DAY_S = 86_400

ACT_BYTES = 1_752  # rows and indexes, as measured: docs/scale.md, "Age"

# Assumptions, not measurements.
ACTS_A_DAY = 10
READS_A_DAY = 4  # the app opened twice, home and one page more each time
PEAK_ACTS, PEAK_READS = 3.0, 4.0  # the busiest minute over the day's mean
REDIS_OPS_S = 50_000  # of one node, with room to spare
SLOWER = 1.5  # what a read may take at the 99th percentile, to what it takes alone
ARRIVALS = 50_000  # that a simulation lasts


class Costs(NamedTuple):
    """Seconds of one core."""

    act_s: float
    read_s: float
    seal_s: float


class Need(NamedTuple):
    """What so many people need in the busiest minute, and a year of disk."""

    people: int
    acts_s: float
    reads_s: float
    intake_cores: int
    read_cores: int
    seal_cores: float
    disk_tb_year: float
    redis_nodes: int
    cities: int


def costs(figures: dict[str, dict[str, float]]) -> Costs:
    """From the table of the last benchmarks."""

    def each_s(*names: str) -> float:
        return sum(MEASURED_CORES / figures[name]["value"] for name in names) / len(names)

    return Costs(
        each_s("ingest over HTTP, 2 providers"),
        each_s("home", "statement page"),
        1 / figures["seal"]["value"],  # one process
    )


def need(people: int, cost: Costs) -> Need:
    """What these people need."""
    acts_s = people * ACTS_A_DAY / DAY_S * PEAK_ACTS
    reads_s = people * READS_A_DAY / DAY_S * PEAK_READS
    return Need(
        people, acts_s, reads_s,
        ceil(acts_s * cost.act_s), cores_for(reads_s, cost.read_s), acts_s * cost.seal_s,
        people * ACTS_A_DAY * 365 * ACT_BYTES / 1e12,
        ceil(reads_s / REDIS_OPS_S), ceil(people / CITY),
    )  # fmt: skip


def cores_for(rate: float, each_s: float) -> int:
    """The least number of cores on which reads that come at random hardly wait."""
    cores = max(1, ceil(rate * each_s))
    while p99(rate, each_s, cores) > SLOWER * each_s:
        cores += max(1, cores // 50)
    return cores


def p99(rate: float, each_s: float, cores: int) -> float:
    """The 99th percentile of seconds from coming to being answered: one line, whoever is free
    takes the next. Each takes equally long, as reads by primary key do."""
    draw, now = random.Random(1), 0.0
    free, taken = [0.0] * cores, []
    for _ in range(ARRIVALS):
        now += draw.expovariate(rate)
        done = max(now, heapq.heappop(free)) + each_s
        heapq.heappush(free, done)
        taken.append(done - now)
    return quantiles(taken[ARRIVALS // 10 :], n=100)[98]


def main() -> None:
    """Print what a core does, and what each number of people needs."""
    cost = costs(json.loads(LATEST.read_text()))
    print(
        f"One core: {DAY_S / cost.act_s:,.0f} activities a day, {1 / cost.read_s:,.0f} reads a"
        f" second; one sealer {1 / cost.seal_s:,.0f} entries a second."
    )
    table = Table(
        "people", "activities/s", "reads/s", "intake cores", "read cores", "sealing cores",
        "disk a year", "Redis nodes", "cities",
    )  # fmt: skip
    for people in PEOPLE:
        one = need(people, cost)
        table.add_row(
            f"{one.people:,}", f"{one.acts_s:,.0f}", f"{one.reads_s:,.0f}",
            str(one.intake_cores), str(one.read_cores), f"{one.seal_cores:.2f}",
            f"{one.disk_tb_year:,.0f} TB", str(one.redis_nodes), str(one.cities),
        )  # fmt: skip
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
