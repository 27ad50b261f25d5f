"""How fast workers empty a queue: of jobs that do nothing, and of jobs that wait.

The same for all: the workers run on an empty queue and have warmed up, when all jobs are committed
at once; the clock runs from the start of the first one until the database has none left. So neither
starting nor noticing counts. All commits are durable, as each contestant's default has it.
"""

from __future__ import annotations

from functools import partial

from peers.awa import Awa
from peers.bare import BareSQL
from peers.base import Peer
from peers.node import BATCHED, Node, NodeOnOurs
from peers.ours import Ours
from peers.pgqueuer import PgQueuer
from peers.procrastinate import Procrastinate
from server import Bench
from workers import running

#: As many jobs at once as Node's documentation measures with; its batches are of 500 as well.
CONCURRENCY = 24
BATCH = 500

OURS = Ours(name="ours", settings={"concurrency": CONCURRENCY})
BARE = BareSQL(name="bare SQL, no task", settings={"batch": BATCH})
NODE = Node(name="Node, default")
NODE_BATCHED = Node(name="Node, batched", settings=BATCHED)
PROCRASTINATE = Procrastinate(name="Procrastinate", settings={"concurrency": CONCURRENCY})
PGQUEUER = PgQueuer(name="PgQueuer", settings={"batch_size": BATCH})
AWA = Awa(
    name="Awa",
    settings={"max_workers": BATCH, "claimers": 2, "claim_batch_size": BATCH},
)

NOTHING: list[Peer] = [
    OURS,
    Ours(name="ours, uvloop", settings={**OURS.settings, "uvloop": 1}),
    BARE,
    NODE,
    NODE_BATCHED,
    NodeOnOurs(name="Node, default, our schema"),
    NodeOnOurs(name="Node, batched, our schema", settings=BATCHED),
    PROCRASTINATE,
    PGQUEUER,
    AWA,
]

#: Here as many jobs run at once with all of them.
WAITING: list[Peer] = [
    OURS,
    Node(name="Node, 24 at once", settings={"concurrentJobs": CONCURRENCY, "maxPoolSize": 25}),
    NODE_BATCHED,
    PROCRASTINATE,
    PgQueuer(
        name="PgQueuer",
        settings={"batch_size": CONCURRENCY // 2, "max_concurrent_tasks": CONCURRENCY},
    ),
    Awa(name="Awa", settings={**AWA.settings, "max_workers": CONCURRENCY}),
]


def drain_rate(bench: Bench, peer: Peer, processes: int, jobs: int, wait: float = 0.0) -> float:
    with running(bench, peer, processes) as run:
        return run.drain(jobs, most_seconds=bench.sizes.most_seconds, wait=wait)


def drain(bench: Bench) -> None:
    """Jobs that do nothing, with one and with two processes."""
    bench.prepare(NOTHING)
    for processes in bench.sizes.processes:
        bench.compare(
            f"drain of {bench.sizes.jobs:,} jobs, {processes} process{'es' * (processes > 1)}",
            {
                peer.name: partial(drain_rate, bench, peer, processes, bench.sizes.jobs)
                for peer in NOTHING
            },
        )


def wait(bench: Bench) -> None:
    """Jobs that wait for 1 and for 10 ms, 24 at once."""
    bench.prepare(WAITING)
    for milliseconds in bench.sizes.waits:
        seconds = milliseconds / 1000
        # No more than what even the perfect worker needs the time for.
        most = int(bench.sizes.most_seconds / 2 * CONCURRENCY / seconds)
        jobs = min(bench.sizes.jobs, most)
        bench.compare(
            f"drain of {jobs:,} jobs of {milliseconds} ms, {CONCURRENCY} at once"
            f" (at most {CONCURRENCY / seconds:,.0f}/s)",
            {peer.name: partial(drain_rate, bench, peer, 1, jobs, seconds) for peer in WAITING},
        )
