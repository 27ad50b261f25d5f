"""Drains of a table in a hostile state, each beside its clean twin.

On the same workers, one after the other: jobs that do nothing are drained from a table that holds
nothing else (the clean twin), the table is emptied and brought into its state by SQL, vacuumed and
analyzed, and as many equal jobs are drained again. What is in the way is older than the jobs that
can be taken. The clock runs from the commit of these jobs until none is left; where that takes too
long, what is done by then is counted.

Fetches are the worker's own measurements of taking jobs, with the network and what else its event
loop does meanwhile: during the drain (up to some hundred jobs at once), and of one job that is
added to the table while the worker sleeps.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import psycopg
from peers.base import Peer
from peers.ours import Ours
from server import Bench, PeerError
from workers import START, Run, running

from parts.drain import NODE_BATCHED, OURS

PEERS: list[Peer] = [Ours(name="ours", settings={**OURS.settings, "fetches": 1}), NODE_BATCHED]

#: Jobs of a queue that is one of thousands.
QUEUED = 10
#: Jobs that are added and drained in a second of churn, a tenth of them at a time.
CHURN = 2000

#: Also of Node's schema. Looking for the greatest id would step over all that was deleted.
LAST = "select last_value from graphile_worker.jobs_id_seq1"
BENCH_TASK = "(select id from graphile_worker._private_tasks where identifier = 'bench')"
IN_THE_WAY = """insert into graphile_worker._private_jobs
  (job_queue_id, task_id, payload, run_at, attempts)
select {queue}, {task}, '{{"n": 0, "wait": 0}}', {run_at}, {attempts}
from generate_series(1, {count}) as i"""
LOCKED = """insert into graphile_worker._private_job_queues (queue_name, locked_at, locked_by)
select 'locked ' || i, now(), 'somebody' from generate_series(1, 2) as i"""
UNKNOWN = """insert into graphile_worker._private_tasks (identifier)
values ('known to no worker')"""
QUEUES = """insert into graphile_worker._private_job_queues (queue_name)
select 'queue ' || i from generate_series(1, {count}) as i"""


@dataclass(frozen=True, kw_only=True)
class State:
    """What is in the way of the jobs: how many, what makes them so, and what it needs first."""

    title: str
    count: int
    first: str = ""
    queue: str = "null"
    task: str = BENCH_TASK
    run_at: str = "now() - interval '1 day' + i * interval '1 microsecond'"
    attempts: int = 0
    #: Node's schema has no such thing.
    is_ours: bool = False

    def scaled(self, scale: float) -> int:
        return max(1, int(self.count * scale))

    def statement(self, count: int) -> str:
        return IN_THE_WAY.format(
            queue=self.queue, task=self.task, run_at=self.run_at, attempts=self.attempts,
            count=count,
        )  # fmt: skip


STATES = (
    State(
        title="{:,} future jobs", count=1_000_000,
        run_at="now() + interval '1 day' + i * interval '1 microsecond'",
    ),
    State(title="{:,} permanently failed jobs", count=1_000_000, attempts=25),
    State(
        title="{:,} ready jobs of a task that no worker knows", count=200_000, first=UNKNOWN,
        task="(select id from graphile_worker._private_tasks where identifier like 'known to no%')",
    ),
    State(
        title="{:,} jobs behind 2 locked queues", count=100_000, first=LOCKED,
        queue="""(array(select id from graphile_worker._private_job_queues
  where queue_name like 'locked %'))[1 + i % 2]""",
    ),
    State(
        title="{:,} jobs of a paused task", count=1_000_000, is_ours=True,
        first=f"{UNKNOWN}; select graphile_worker.pause_task('known to no worker')",
        task="(select id from graphile_worker._private_tasks where identifier like 'known to no%')",
    ),
    State(
        title="{:,} jobs of 100 paused queues", count=1_000_000, is_ours=True,
        first="""insert into graphile_worker._private_job_queues (queue_name)
select 'paused ' || i from generate_series(1, 100) as i;
select graphile_worker.pause_queue('paused *')""",
        queue="""(array(select id from graphile_worker._private_job_queues
  where queue_name like 'paused %'))[1 + i % 100]""",
    ),
    State(
        title="a limit on every task", count=1, is_ours=True,
        first="select graphile_worker.set_limit('task', '*', max_running => 10000)",
    ),
    State(
        title="a limit and a rate on every task", count=1, is_ours=True,
        first="""select graphile_worker.set_limit('task', '*', max_running => 10000,
  rate => 1000000, per => '1 second')""",
    ),
)  # fmt: skip

#: Queues of which each has some of the jobs that are drained; nothing else is in the way.
MANY_QUEUES = (5_000, 50_000)


def _fill(run: Run, statement: str | None, count: int) -> tuple[int, int]:
    """Add the jobs of a drain in one transaction; return the ids before them and of the last."""
    with run.conn.transaction():
        before = _int(run, LAST)
        if statement is None:
            run.peer.load(run.conn, count, {"n": 0, "wait": 0})
        else:
            run.conn.execute(statement)
            run.peer.load(run.conn, 1, {"n": 0, "wait": 0})  # wakes the worker
        run.conn.execute("analyze")
        return before, _int(run, LAST)


def _drain(
    run: Run, count: int, seconds: float, statement: str | None = None
) -> tuple[float, list[float]]:
    """Return the jobs a second of a drain, and the milliseconds of its fetches."""
    before, last = _fill(run, statement, count)
    start = time.time_ns()
    left, empty = 0, run.empties(last, seconds, after=before)
    end = time.time_ns()  # what the next statement sees
    if not empty:
        left = _int(run, f"select count(*) from {run.peer.jobs} where id > {before}")
    fetches = [
        each * 1000
        for process in run.processes
        for at, each, _ in process.fetches
        if start <= at <= end
    ]
    return (count - left) / (end - start) * 1e9, fetches


def _probe(run: Run, probes: int) -> list[float]:
    """Return the milliseconds of fetches of single jobs, by a worker that sleeps."""
    process = run.processes[0]
    start = time.time_ns()
    for number in range(1, probes + 1):
        time.sleep(0.02)
        with run.conn.transaction():
            run.peer.load(run.conn, 1, {"n": number, "wait": 0})
        process.wait_for(number, 30)
    return [each * 1000 for at, each, _ in process.fetches if at >= start]


def _int(run: Run, query: str) -> int:
    row = run.conn.execute(query).fetchone()
    assert row
    return int(row[0])


def _settle(run: Run) -> None:
    run.conn.execute("vacuum analyze graphile_worker._private_jobs")
    run.conn.execute("vacuum analyze graphile_worker._private_job_queues")
    run.conn.execute("checkpoint")


def _p95(title: str, fetches: list[float]) -> dict[str, float]:
    if len(fetches) < 2:
        return {}
    return {title: statistics.quantiles(fetches, n=100, method="inclusive")[94]}


def _figures(title: str) -> dict[str, str]:
    return {
        f"{title}: drained": "/s",
        f"{title}: its clean twin": "/s",
        f"{title}: of the clean rate": "",
        f"{title}: fetch, 95th percentile": " ms",
        f"{title}: clean fetch, 95th percentile": " ms",
        f"{title}: fetch of one job, 95th percentile": " ms",
    }


def _compared(
    title: str, clean: tuple[float, list[float]], hostile: tuple[float, list[float]],
    single: list[float],
) -> dict[str, float]:  # fmt: skip
    return {
        f"{title}: drained": hostile[0],
        f"{title}: its clean twin": clean[0],
        f"{title}: of the clean rate": hostile[0] / clean[0],
        **_p95(f"{title}: fetch, 95th percentile", hostile[1]),
        **_p95(f"{title}: clean fetch, 95th percentile", clean[1]),
        **_p95(f"{title}: fetch of one job, 95th percentile", single),
    }


def _beside(bench: Bench, state: State, title: str, peer: Peer) -> dict[str, float]:
    jobs, seconds = bench.sizes.jobs, 3 * bench.sizes.most_seconds
    with running(bench, peer) as run:
        clean = _drain(run, jobs, seconds)
        run.conn.execute("truncate graphile_worker._private_jobs")
        if state.first:
            run.conn.execute(state.first)
        run.conn.execute(state.statement(state.scaled(bench.sizes.scale)))
        _settle(run)
        hostile = _drain(run, jobs, seconds)
        single = _probe(run, bench.sizes.probes) if peer is PEERS[0] else []
        return _compared(title, clean, hostile, single)


def _queued(bench: Bench, queues: int, title: str, peer: Peer) -> dict[str, float]:
    jobs, seconds = QUEUED * queues, 3 * bench.sizes.most_seconds
    given = State(title=title, count=jobs)
    of_queues = State(
        title=title, count=jobs,
        queue=f"""(select min(id) from graphile_worker._private_job_queues) + i % {queues}""",
    )  # fmt: skip
    with running(bench, peer) as run:
        clean = _drain(run, jobs, seconds, given.statement(jobs - 1))
        run.conn.execute("truncate graphile_worker._private_jobs")
        run.conn.execute(QUEUES.format(count=queues))
        _settle(run)
        hostile = _drain(run, jobs, seconds, of_queues.statement(jobs - 1))
        return _compared(title, clean, hostile, [])


def _peers(bench: Bench) -> list[Peer]:
    """Return the contestants with their schemas ready: ours alone where tables are small."""
    peers = PEERS[:1] if bench.sizes.is_small else PEERS
    bench.prepare(peers)
    return peers


def hostile(bench: Bench) -> None:
    """Jobs in the way that cannot be taken, and jobs in very many queues."""
    peers = _peers(bench)
    scale = bench.sizes.scale
    measures: dict[str, Callable[[str, Peer], dict[str, float]]] = {
        state.title.format(state.scaled(scale)): partial(_beside, bench, state) for state in STATES
    }
    ours = {state.title.format(state.scaled(scale)) for state in STATES if state.is_ours}
    for most in MANY_QUEUES:
        queues = max(1, int(most * scale))
        title = f"{queues:,} queues with {QUEUED} jobs each"
        measures[title] = partial(_queued, bench, queues)
    for title, measure in measures.items():
        bench.compare_all(
            _figures(title),
            {
                peer.name: partial(measure, title, peer)
                for peer in peers
                if peer is PEERS[0] or title not in ours
            },
        )


@contextmanager
def _snapshot(dsn: str) -> Iterator[None]:
    """Hold a snapshot: what is deleted meanwhile cannot be vacuumed away."""
    with psycopg.connect(dsn) as conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        conn.execute("select count(*) from graphile_worker._private_jobs")
        yield
        conn.rollback()


def _churn(run: Run, seconds: float) -> int:
    """Add and drain jobs at a steady pace, or as fast as it goes; return how many."""
    start, done, lot = time.monotonic(), 0, CHURN // 10
    while (passed := time.monotonic() - start) < seconds:
        if done > passed * CHURN:
            time.sleep((done - passed * CHURN) / CHURN)
        before = _int(run, LAST)
        run.peer.load(run.conn, lot, {"n": 0, "wait": 0})
        if not run.empties(_int(run, LAST), START + seconds, after=before):
            raise PeerError(f"{lot} jobs were not done in {START + seconds:.0f} seconds")
        done += lot
    return done


def _churned(bench: Bench, peer: Peer, titles: tuple[str, str]) -> list[dict[str, float]]:
    """Return the figures of pairs of drains, after a churn beside a held snapshot and without.

    All on one server: three databases, each with its worker; both churns at the same time, then the
    drains of the three in turn.
    """
    jobs, seconds = bench.sizes.jobs, 3 * bench.sizes.most_seconds
    with ExitStack() as stack:
        clean, free, held = (stack.enter_context(running(bench, peer)) for _ in range(3))
        stack.enter_context(_snapshot(held.dsn))
        with ThreadPoolExecutor(2) as pool:
            churns = [pool.submit(_churn, run, bench.sizes.churn_seconds) for run in (held, free)]
            done = [churn.result() for churn in churns]
        pairs = []
        for _ in range(bench.sizes.rounds):
            clean.conn.execute("truncate graphile_worker._private_jobs")
            twin = _drain(clean, jobs, seconds)
            figures: dict[str, float] = {}
            for title, run, churned in zip(titles, (held, free), done, strict=True):
                single = _probe(run, bench.sizes.probes) if peer is PEERS[0] else []
                figures |= _compared(title, twin, _drain(run, jobs, seconds), single)
                figures[f"{title}: churned before"] = churned
            pairs.append(figures)
        return pairs


def churn(bench: Bench) -> None:
    """A table that was churned for some minutes while somebody held a snapshot, or nobody did."""
    peers = _peers(bench)
    seconds = f"{bench.sizes.churn_seconds:.0f} s of churn"
    titles = (f"a snapshot held during {seconds}", f"{seconds}, no snapshot held")
    pairs: dict[str, list[dict[str, float]]] = {}
    for peer in peers:
        if peer is PEERS[0] or bench.runs(peer.name):
            try:
                pairs[peer.name] = _churned(bench, peer, titles)
            except PeerError as error:
                print(f"! {peer.name}: {error}", flush=True)
                pairs[peer.name] = [{}] * bench.sizes.rounds
    for title in titles:
        for figure, unit in {**_figures(title), f"{title}: churned before": " jobs"}.items():
            bench.report(
                figure,
                unit,
                {name: [each.get(figure) for each in of] for name, of in pairs.items()},
            )
