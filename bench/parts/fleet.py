"""A fleet of idle workers: its connections, its transactions, and what one added job costs.

The workers run in one process, each with connections of its own. A transaction is what the server
counts as one, less those of this measurement.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psycopg
from graphile_worker.worker import Worker
from peers.ours import Ours
from server import Bench

OURS = Ours(name="ours")
#: How many workers there are; and of these, those that do not listen.
FLEETS = {"1 worker": (1, True), "20 workers": (20, True), "80 workers": (80, True),
          "20 workers, no listen": (20, False)}  # fmt: skip
#: Until connections that are not needed are closed.
SETTLED = 25.0
PROBES, PAUSE = 50, 0.1
#: Until the server's sessions have reported what they did.
REPORTED = 11.0

CONNECTIONS = """select count(*) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()"""
#: Counted when a transaction of the session that asks has ended, too.
TRANSACTIONS = "select xact_commit from pg_stat_database where datname = current_database()"


@contextmanager
def _fleet(dsn: str, size: int, listens: bool, started: dict[int, float]) -> Iterator[None]:
    async def bench(payload: dict[str, int]) -> None:
        started[payload["n"]] = time.perf_counter()

    async def run() -> None:
        workers = [Worker({"bench": bench}, dsn=dsn, listen=listens) for _ in range(size)]
        tasks = [asyncio.ensure_future(worker.run()) for worker in workers]
        await asyncio.to_thread(stop.wait)
        for worker in workers:
            worker.stop()
        await asyncio.gather(*tasks)

    stop = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _measure(bench: Bench, size: int, listens: bool) -> dict[str, float]:
    started: dict[int, float] = {}
    with (
        bench.copy(OURS) as dsn,
        psycopg.connect(dsn, autocommit=True) as conn,
        _fleet(dsn, size, listens, started),
    ):

        def value(query: str) -> int:
            ((found,),) = conn.execute(query)
            return int(found)

        def counted() -> int:
            """Count the transactions, when idle sessions have reported theirs."""
            time.sleep(REPORTED)
            conn.execute("select pg_stat_clear_snapshot()")
            return value(TRANSACTIONS)

        time.sleep(SETTLED)
        connections = value(CONNECTIONS)
        before, since = counted(), time.monotonic()
        time.sleep(bench.sizes.idle_seconds)
        idle = (counted() - before) / (time.monotonic() - since)
        figures = {"connections": float(connections), "transactions a second, idle": idle}
        if listens:
            before, since = counted(), time.monotonic()
            added = {}
            for n in range(PROBES):
                added[n] = time.perf_counter()
                conn.execute(
                    "select graphile_worker.add_job('bench', json_build_object('n', %s::int))", [n]
                )
                time.sleep(PAUSE)
            own = PROBES + idle * (time.monotonic() - since)
            figures["transactions a job"] = (counted() - before - own) / PROBES
            waits = [(started[n] - at) * 1000 for n, at in added.items()]
            cuts = statistics.quantiles(waits, n=100, method="inclusive")
            figures |= {"start, median": cuts[49], "start, 99th percentile": cuts[98]}
    return {f"fleet: {name}": figure for name, figure in figures.items()}


def fleet(bench: Bench) -> None:
    """Measure all of it."""
    bench.prepare([OURS])
    units = {
        "connections": "", "transactions a second, idle": "", "transactions a job": "",
        "start, median": " ms", "start, 99th percentile": " ms",
    }  # fmt: skip
    bench.compare_all(
        {f"fleet: {name}": unit for name, unit in units.items()},
        {name: partial(_measure, bench, *what) for name, what in FLEETS.items()},
    )
