"""What this version costs: its schema beside the last released one, under the same worker."""

from __future__ import annotations

import time
from functools import partial

from peers.base import Peer
from peers.ours import Released
from server import Bench

from parts.adding import ADD, ADD_MANY, COMPLETE, FETCH, KEYED, MANY, fresh, pgbench_fresh, timed
from parts.drain import CONCURRENCY, OURS, drain_rate
from parts.latency import FIGURES, figures_of

RELEASED = Released(name="ours, released", settings={"concurrency": CONCURRENCY})
BOTH: list[Peer] = [OURS, RELEASED]

#: Seconds for which one number of jobs is fetched and completed, again and again.
SECONDS = 2


def _protocol(bench: Bench, peer: Peer, jobs: int) -> float:
    """Return the jobs per second that are fetched and completed, that many at once."""
    seconds, done = 0.0, 0
    with fresh(bench, peer) as connection:
        connection.execute("set synchronous_commit = off")
        connection.execute("set graphile_worker.notify = off")
        while seconds < SECONDS:
            connection.execute(peer.insert, {"count": jobs, "payload": "{}"})
            start = time.perf_counter()
            ids = [row[0] for row in connection.execute(FETCH, [jobs])]
            connection.execute(COMPLETE, [ids])
            seconds += time.perf_counter() - start
            done += len(ids)
    return done / seconds


def versions(bench: Bench) -> None:
    """Add, fetch and complete, drain and wait for a start, on both schemas."""
    bench.prepare(BOTH)
    for clients in bench.sizes.clients:
        for notify in ("on", "off"):
            options = f"-c synchronous_commit=off -c graphile_worker.notify={notify}"
            bench.compare(
                f"add_job, {clients} clients, notify {notify}",
                {
                    each.name: partial(pgbench_fresh, bench, each, ADD, clients, options)
                    for each in BOTH
                },
            )
    keyed = KEYED % '{"to": "somebody"}'
    bench.compare(
        "add_job keyed",
        {
            each.name: partial(pgbench_fresh, bench, each, keyed, 1, "-c synchronous_commit=off")
            for each in BOTH
        },
    )
    for title, key in (("", "null"), (" keyed", "'k' || i")):
        bench.compare(
            f"add_jobs of {MANY:,}{title}",
            {each.name: partial(timed, bench, each, key, MANY, ADD_MANY) for each in BOTH},
        )
    for jobs in (1, 10, 100, 750):
        bench.compare(
            f"fetch and complete {jobs}",
            {each.name: partial(_protocol, bench, each, jobs) for each in BOTH},
        )
    for processes in bench.sizes.processes:
        bench.compare(
            f"drain of {bench.sizes.jobs:,}, {processes} process{'es' * (processes > 1)}",
            {
                each.name: partial(drain_rate, bench, each, processes, bench.sizes.jobs)
                for each in BOTH
            },
        )
    bench.compare_all(FIGURES, {each.name: partial(figures_of, bench, each) for each in BOTH})
