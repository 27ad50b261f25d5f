"""How fetching and adding jobs keep their speed as the queue grows, from 1,000 waiting jobs on.

20 tasks; every tenth job is in one of 1,000 queues. A fetch of 100 jobs is completed, and 100
others are added. The table is filled by one statement and analyzed, as after a nightly import.
"""

from __future__ import annotations

import statistics
import time
from functools import partial

import psycopg
from peers.ours import Ours
from server import Bench

OURS = Ours(name="ours")
#: Waiting jobs, at the full scale.
SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
LAPS = 200
FETCH, ADD = "fetch of 100, 95th percentile", "add_job, median"

NAMES = """select count(*) from generate_series(1, 20) as task, generate_series(0, 1000) as queue,
graphile_worker.add_job('task-' || task,
  queue_name := case when queue > 0 then 'queue-' || queue end)"""
FILL = """insert into graphile_worker._private_jobs (task_id, job_queue_id, payload, run_at)
select tasks.id, queues.id, '{"to": "somebody"}', now() - (%(count)s - n) * interval '1 microsecond'
from generate_series(1, %(count)s) as n
join (select id, row_number() over (order by id) as place from graphile_worker._private_tasks)
  as tasks on tasks.place = 1 + n %% 20
left join (select id, row_number() over (order by id) as place
  from graphile_worker._private_job_queues) as queues
  on n %% 10 = 0 and queues.place = 1 + n / 10 %% 1000
"""
AGAIN = """select count(*) from graphile_worker.add_jobs(array(
  select row('task-' || 1 + n % 20, '{"to": "somebody"}', null, null, null, null, null, null)
  ::graphile_worker.job_spec from generate_series(1, 100) as n))"""
OF_QUEUES = """with queues as (
  insert into graphile_worker._private_job_queues (queue_name)
  select 'queue ' || n from generate_series(1, %s) as n returning id
)
insert into graphile_worker._private_jobs (task_id, job_queue_id, run_at)
select 1, id, now() - random() * interval '1 hour' from queues"""
HOLD = """update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'another'
where id % 10 <> 0"""
QUEUED = "growth: fetch of 100, a million queues of one job each"
HELD = "growth: fetch of 100, nine tenths of these queues held"


def title(figure: str, size: int) -> str:
    """Return the title of a figure at a size of the queue."""
    return f"growth: {figure}, {size:,} waiting"


def _measure(bench: Bench, size: int) -> dict[str, float]:
    count = max(1_000, int(size * bench.sizes.scale))
    with bench.copy(OURS) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("set synchronous_commit = off")
        conn.execute(NAMES)
        conn.execute("truncate graphile_worker._private_jobs")
        conn.execute(FILL, {"count": count})
        conn.execute("vacuum analyze graphile_worker._private_jobs")
        conn.execute("checkpoint")
        fetches, adds = [], []
        for _ in range(LAPS):
            began = time.perf_counter()
            rows = conn.execute("select id from graphile_worker.get_jobs('w', 100)").fetchall()
            fetches.append(time.perf_counter() - began)
            assert rows
            conn.execute(
                "select count(*) from graphile_worker.finish_jobs('w', %s)", [[i for (i,) in rows]]
            )
            conn.execute(AGAIN)
            began = time.perf_counter()
            conn.execute("select graphile_worker.add_job('task-1')")
            adds.append(time.perf_counter() - began)
    p95 = statistics.quantiles(fetches, n=20, method="inclusive")[18]
    return {title(FETCH, size): p95 * 1000, title(ADD, size): statistics.median(adds) * 1000}


def _queues(bench: Bench) -> dict[str, float]:
    """Measure fetches where each job has a queue of its own, and where others hold most queues."""
    count = max(1_000, int(1_000_000 * bench.sizes.scale))
    figures = {}
    with bench.copy(OURS) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("set synchronous_commit = off")
        conn.execute("select graphile_worker.add_job('task-1')")
        conn.execute("truncate graphile_worker._private_jobs")
        conn.execute(OF_QUEUES, [count])
        for state, hold in ((QUEUED, ""), (HELD, HOLD)):
            conn.execute(hold)
            conn.execute("vacuum analyze")
            fetches = []
            for _ in range(LAPS):
                began = time.perf_counter()
                rows = conn.execute("select id from graphile_worker.get_jobs('w', 100)").fetchall()
                fetches.append(1000 * (time.perf_counter() - began))
                assert rows
                ids = [number for (number,) in rows]
                conn.execute("select count(*) from graphile_worker.finish_jobs('w', %s)", [ids])
            figures[f"{state}: 95th percentile"] = statistics.quantiles(fetches, n=20)[18]
            figures[f"{state}: slowest"] = max(fetches)
    return figures


def growth(bench: Bench) -> None:
    """Measure all of it."""
    bench.prepare([OURS])
    bench.compare_all(
        {
            f"{state}: {what}": " ms"
            for state in (QUEUED, HELD)
            for what in ("95th percentile", "slowest")
        },
        {"ours": partial(_queues, bench)},
    )
    for size in SIZES:
        bench.compare_all(
            {title(FETCH, size): " ms", title(ADD, size): " ms"},
            {"ours": partial(_measure, bench, size)},
        )
