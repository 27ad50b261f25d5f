"""From a job's commit to its task's start, in milliseconds.

One job is added in a transaction whose commit does not wait for the disk. The clock runs from
before the commit is sent, in this process, to the first line of the task, in the worker's: the same
machine, the same clock. Idle: the next job is added after a pause when the last one was started.
Light and heavy load: as many jobs a second for all contestants are added beside, every 10 ms; heavy
only for those that drain half as many again. Half load: half as many as the contestant can drain.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psycopg
from peers.bare import BareNotify
from peers.base import Peer
from server import Bench, PeerError
from workers import Run, running

from parts.drain import AWA, NODE, NODE_BATCHED, OURS, PGQUEUER, PROCRASTINATE

NOTIFY = BareNotify(name="LISTEN and NOTIFY alone")
PEERS: list[Peer] = [OURS, NODE, NODE_BATCHED, PROCRASTINATE, PGQUEUER, AWA, NOTIFY]
PAUSE = 0.02
HALF_OF = "drained before: the half load is half of it"
#: What is measured, and in which unit.
FIGURES = {
    **{
        f"latency, {kind}, {which}": " ms"
        for kind in ("idle", "light load", "heavy load", "half load")
        for which in ("median", "99th percentile")
    },
    HALF_OF: "/s",
}
#: Jobs a second of the light load, which every contestant can do, and of the heavy one.
LIGHT, HEAVY = 200, 10_000
#: Between two lots of jobs of a load.
BEAT = 0.01


def probe(run: Run, number: int) -> int:
    """Add a job; return the time before its commit, in nanoseconds."""
    payload = {"n": number, "wait": 0}
    with run.conn.transaction():
        run.conn.execute("set local synchronous_commit = off")
        run.peer.load(run.conn, 1, payload)
        return time.time_ns()


@contextmanager
def _load(run: Run, rate: float) -> Iterator[None]:
    """Add so many jobs a second meanwhile."""
    stop, late = threading.Event(), []
    lot = max(1, round(rate * BEAT))

    def add() -> None:
        with psycopg.connect(run.dsn, autocommit=True) as conn:
            due = time.monotonic()
            while not stop.wait(max(0.0, due - time.monotonic())):
                run.peer.load(conn, lot, {"n": 0, "wait": 0})
                due += BEAT
            late.append(time.monotonic() - due)

    thread = threading.Thread(target=add)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if late and late[0] > 1:
        raise PeerError("jobs could not be added fast enough")


def _figures(kind: str, seen: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seen, n=100, method="inclusive")
    return {f"latency, {kind}, median": cuts[49], f"latency, {kind}, 99th percentile": cuts[98]}


def figures_of(bench: Bench, peer: Peer) -> dict[str, float]:
    probes = bench.sizes.probes
    with running(bench, peer) as run:
        process = run.processes[0]
        idle: list[float] = []
        for number in range(1, 2 * probes + 1):
            time.sleep(PAUSE)
            at = probe(run, number)
            idle.append((process.wait_for(number, 30) - at) / 1e6)
        figures = _figures("idle", idle)
        if peer is NOTIFY:
            return figures
        rate = run.drain(bench.sizes.jobs // 2, most_seconds=bench.sizes.most_seconds / 4)
        figures[HALF_OF] = rate
        for kind, load in (("light load", LIGHT), ("heavy load", HEAVY), ("half load", rate / 2)):
            if load > rate / 1.5:
                continue
            added, first = {}, number + 1
            try:
                with _load(run, load):
                    time.sleep(0.3)
                    for number in range(first, first + probes):
                        time.sleep(PAUSE)
                        added[number] = probe(run, number)
            except PeerError as error:
                print(f"! {peer.name}, {kind}: {error}", flush=True)
                break
            busy = [(process.wait_for(number, 30) - at) / 1e6 for number, at in added.items()]
            figures |= _figures(kind, busy)
        return figures


def latency(bench: Bench) -> None:
    """Measure all of it."""
    bench.prepare(PEERS)
    bench.compare_all(FIGURES, {peer.name: partial(figures_of, bench, peer) for peer in PEERS})
