"""Measure the queue and its worker on one private server, peers beside them, and print the ratios.

Every figure is the median of the rounds of one run, with the least and the greatest; each round
measures all contestants, one after the other. `make bench` runs it; `make bench-quick` has one
round of everything, in less than three minutes. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import machine
from figures import Figure, first_rows
from graphile_worker.testing.embedded import Server
from parts import (
    adding,
    beside,
    citus,
    day,
    drain,
    fleet,
    growth,
    hostile,
    latency,
    memory,
    python_client,
    records,
    startup,
    versions,
)
from server import SETTINGS, Bench, Sizes

PARTS: dict[str, Callable[[Bench], None]] = {
    "enqueue": adding.one,
    "keyed": adding.keyed,
    "many": adding.many,
    "beside": beside.beside,
    "protocol": adding.protocol,
    "client": python_client.measure,
    "drain": drain.drain,
    "wait": drain.wait,
    "latency": latency.latency,
    "memory": memory.memory,
    "startup": startup.startup,
    "fleet": fleet.fleet,
    "growth": growth.growth,
    "day": day.day,
    "citus": citus.citus,
    "hostile": hostile.hostile,
    "churn": hostile.churn,
    "records": records.records,
    "versions": versions.versions,
}

#: The quick run compares with others, and stays below three minutes.
SLOW = ("fleet", "growth", "day", "citus", "versions", "records")

FULL = Sizes(
    rounds=5, seconds=2, clients=(1, 4, 16), jobs=100_000, most_seconds=10,
    processes=(1, 2), waits=(1, 10), probes=200, idle_seconds=20, scale=1, churn_seconds=300,
)  # fmt: skip
QUICK = Sizes(
    rounds=1, seconds=1, clients=(4,), jobs=5_000, most_seconds=0.5,
    processes=(2,), waits=(10,), probes=10, idle_seconds=1,
    scale=0.05, churn_seconds=2,
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--quick", action="store_true", help="one small round of everything")
    found.add_argument(
        "--only", choices=PARTS, action="append", help="one part of it; may be repeated"
    )
    found.add_argument("--rounds", type=int, help="how many (5)")
    found.add_argument(
        "--clients", type=int, nargs="+", help="that add jobs at once, one number after the other"
    )
    found.add_argument("--jobs", type=int, help="of a drain (100,000)")
    found.add_argument(
        "--seconds", type=float, dest="most_seconds",
        help="of a drain that a slow contestant gets fewer jobs for (10)",
    )  # fmt: skip
    found.add_argument(
        "--scale", type=float, help="of the hostile tables (1: 1,000,000 jobs in the way)"
    )
    found.add_argument(
        "--churn-seconds", type=float, help="beside an open snapshot, before it is measured (300)"
    )
    found.add_argument(
        "--peer", action="append", default=[], help="only these, by a part of their names, and ours"
    )
    found.add_argument("--json", type=Path, help="write all figures of all rounds to this file")
    return found


def main() -> int:
    chosen = parser().parse_args()
    # As Ctrl-C does: so that every process is ended and the server's folder goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given = {
        name: value
        for name in ("rounds", "jobs", "most_seconds", "scale", "churn_seconds")
        if (value := getattr(chosen, name)) is not None
    }
    if chosen.clients:
        given["clients"] = tuple(chosen.clients)
    sizes = replace(QUICK if chosen.quick else FULL, **given)
    left_out = SLOW if chosen.quick else ()
    wanted = chosen.only or [name for name in PARTS if name not in left_out]
    with Server(durable=True, settings=SETTINGS) as server:
        bench = Bench(server, sizes, chosen.peer)
        try:
            for name, part in PARTS.items():
                if name in wanted:
                    bench.part, start = name, time.monotonic()
                    part(bench)
                    took = f"[{name}: {time.monotonic() - start:.0f} s]"
                    print(took, file=sys.stderr, flush=True)
        finally:
            print(first_rows([Figure(**each) for each in bench.results]), end="\n\n")
            bench.print_all()
            if chosen.json:
                whole = {
                    "date": date.today().isoformat(),
                    "machine": machine.describe(server.dsn()),
                    "sizes": asdict(sizes),
                    "results": bench.results,
                }
                chosen.json.write_text(json.dumps(whole, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
