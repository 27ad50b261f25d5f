"""Adding jobs one by one, durably, while a worker runs them: how fast, and how late they start.

As fast as 16 clients can, and 500 jobs a second: then all contestants have the same to do. Jobs are
probed as in the part "latency", by a connection of its own.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from peers.base import Peer
from server import Bench
from workers import running

from parts.adding import pgbench
from parts.drain import NODE_BATCHED, OURS
from parts.latency import PAUSE, probe

CLIENTS, RATE = 16, 500
KINDS = {f"by {CLIENTS} clients": 0, f"{RATE} a second": RATE}
ADD = """select id from graphile_worker.add_job('bench', '{"n": 0, "wait": 0}')"""
CONTESTANTS: dict[str, tuple[Peer, str]] = {
    "ours": (OURS, ""),
    "ours, notify = on": (OURS, "on"),
    "ours, notify = off": (OURS, "off"),
    "Node, batched": (NODE_BATCHED, ""),
}


@contextmanager
def _setting(notify: str) -> Iterator[str]:
    """Have every new connection of this process and of those it starts notify so."""
    os.environ["PGOPTIONS"] = options = f"-c graphile_worker.notify={notify}"
    try:
        yield options
    finally:
        del os.environ["PGOPTIONS"]


def _beside(bench: Bench, peer: Peer, notify: str) -> dict[str, float]:
    figures: dict[str, float] = {}
    with (
        _setting(notify) as options,
        running(bench, peer) as run,
        ThreadPoolExecutor(1) as pool,
    ):
        dbname = run.conn.info.dbname
        number = 0
        for kind, rate in KINDS.items():
            added: dict[int, int] = {}
            adders = pool.submit(pgbench, bench, dbname, ADD, CLIENTS, options, rate=rate)
            time.sleep(0.3)
            while not adders.done():
                number += 1
                added[number] = probe(run, number)
                time.sleep(PAUSE)
            process = run.processes[0]
            seen = [(process.wait_for(number, 60) - at) / 1e6 for number, at in added.items()]
            cuts = statistics.quantiles(seen, n=100, method="inclusive")
            figures |= {
                f"added {kind} beside a worker": adders.result(),
                f"added {kind} beside a worker: start, median": cuts[49],
                f"added {kind} beside a worker: start, 99th percentile": cuts[98],
            }
    return figures


def beside(bench: Bench) -> None:
    """Measure all of it."""
    names = ["ours", "Node, batched"] if bench.sizes.is_small else list(CONTESTANTS)
    bench.prepare([OURS, NODE_BATCHED])
    units = {"": "/s", ": start, median": " ms", ": start, 99th percentile": " ms"}
    bench.compare_all(
        {
            f"added {kind} beside a worker{what}": unit
            for kind in KINDS
            for what, unit in units.items()
        },
        {name: partial(_beside, bench, *CONTESTANTS[name]) for name in names},
    )
