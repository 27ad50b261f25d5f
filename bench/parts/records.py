"""What it costs to keep the history of jobs, and how fast it is read when there is much of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
from graphile_worker import WorkerUtils
from peers.base import Peer
from peers.ours import FITS, Checked, Keeping
from server import Bench
from workers import running

from parts.adding import FETCH, fresh, pgbench_fresh
from parts.drain import CONCURRENCY, OURS, drain_rate

KEEPING = Keeping(name="ours, with history", settings={"concurrency": CONCURRENCY})
BOTH: list[Peer] = [KEEPING, OURS]
CHECKED = Checked(name="ours, with a schema")
#: A payload that fits to a schema of ten properties.
ADD = f"select graphile_worker.add_job('bench', '{json.dumps(FITS)}')"
COMPLETE = """select count(*) from graphile_worker.finish_jobs_with_results(
  'w', %(ids)s, array_fill('{"sent": true}'::json, array[cardinality(%(ids)s::bigint[])]))"""
#: Seconds for which jobs are fetched and completed, again and again.
SECONDS = 2
#: Rows of history; the rest of the figures are milliseconds of one answer.
ROWS = 10_000_000
#: As many answers of each kind are timed.
PROBES = 30


def _completed(bench: Bench, peer: Peer, jobs: int) -> float:
    """Return the jobs per second that are completed with results, that many at once."""
    seconds, done = 0.0, 0
    with fresh(bench, peer) as connection:
        connection.execute("set synchronous_commit = off")
        connection.execute("set graphile_worker.notify = off")
        while seconds < SECONDS:
            connection.execute(peer.insert, {"count": jobs, "payload": "{}"})
            ids = [row[0] for row in connection.execute(FETCH, [jobs])]
            start = time.perf_counter()
            connection.execute(COMPLETE, {"ids": ids})
            seconds += time.perf_counter() - start
            done += len(ids)
    return done / seconds


def _hot_table(bench: Bench, peer: Peer) -> dict[str, float]:
    """Return what the table of jobs weighs after a drain, and the pages that a fetch then reads."""
    with running(bench, peer, 1) as run:
        run.drain(bench.sizes.jobs, most_seconds=bench.sizes.most_seconds)
        found = run.conn.execute(
            "select pg_table_size(oid) / 1048576.0, pg_indexes_size(oid) / 1048576.0"
            " from pg_class where oid = 'graphile_worker._private_jobs'::regclass"
        ).fetchone()
        assert found
        return {"table of jobs": float(found[0]), "its indexes": float(found[1])}


FILL = """insert into graphile_worker._private_history (job_id, state, task_identifier, queue_name,
  priority, attempts, max_attempts, run_at, created_at, started_at, finished_at, duration,
  worker_id, error, result)
select i, case when i %% 1000 = 0 then 'failed' else 'completed' end,
  case when i %% 100000 = 0 then 'rare' else 'task' || i %% 20 end, null, 0, 1, 25, at, at, at, at,
  interval '5 ms', 'worker', case when i %% 1000 = 0 then 'no' end, '{"sent": true}'
from generate_series(%(first)s::bigint, %(last)s::bigint) as i,
  lateral (select %(start)s::timestamptz + i * %(step)s::interval as at) as times"""


def _filled(conn: psycopg.Connection[Any], rows: int) -> None:
    """Put so many ended jobs into 30 days of history."""
    conn.execute("select graphile_worker.keep_history(keep => '40 days')")
    # From 30 days ago on: partitions are made for the future only.
    conn.execute(
        """do $$ begin
  for day in 1..30 loop
    execute format(
      'create table graphile_worker._private_history_%s'
      ' (like graphile_worker._private_history including defaults)', 'past_' || day);
    execute format('create index on graphile_worker.%I (job_id)',
      '_private_history_past_' || day);
    execute format('create index on graphile_worker.%I (finished_at)',
      '_private_history_past_' || day);
    execute format('create index on graphile_worker.%I (task_identifier, finished_at)',
      '_private_history_past_' || day);
    execute format('create index on graphile_worker.%I (finished_at)'
      ' where state <> ''completed''', '_private_history_past_' || day);
    execute format(
      'alter table graphile_worker._private_history attach partition graphile_worker.%I'
      ' for values from (%L) to (%L)', '_private_history_past_' || day,
      date_trunc('day', now() at time zone 'UTC') at time zone 'UTC' - day * interval '1 day',
      date_trunc('day', now() at time zone 'UTC') at time zone 'UTC'
        - (day - 1) * interval '1 day');
  end loop;
end $$"""
    )
    found = conn.execute(
        "select date_trunc('day', now() at time zone 'UTC') at time zone 'UTC'"
        " - interval '30 days' + interval '1 ms'"
    ).fetchone()
    assert found
    step = f"{30 * 86400 * 0.9999 / rows:.9f} seconds"
    for first in range(1, rows + 1, 500_000):
        last = min(first + 499_999, rows)
        conn.execute(FILL, {"first": first, "last": last, "start": found[0], "step": step})
    conn.execute("select setval('graphile_worker.jobs_id_seq1', %s)", [rows + 1])
    conn.execute("vacuum analyze graphile_worker._private_history")


def _milliseconds(ask: Callable[[int], Any]) -> float:
    """Return the slowest of some answers but the first, which connects."""
    ask(0)
    taken = []
    for n in range(1, PROBES + 1):
        start = time.perf_counter()
        ask(n)
        taken.append(time.perf_counter() - start)
    return max(taken) * 1000


def _read(bench: Bench, rows: int) -> dict[str, float]:
    with bench.copy(OURS) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        _filled(conn, rows)
        with WorkerUtils(dsn) as utils:
            page = utils.job_history(limit=50)
            old = utils.job_history(before=page[-1], limit=50)
            assert len(old) == 50
            return {
                "get_job": _milliseconds(lambda n: utils.find_job(1 + n * (rows // PROBES - 1))),
                "a page of the latest": _milliseconds(lambda n: utils.job_history(limit=50)),
                "the next page": _milliseconds(
                    lambda n: utils.job_history(before=page[-1], limit=50)
                ),
                "a page of one task": _milliseconds(
                    lambda n: utils.job_history(tasks=[f"task{n % 20}"], limit=50)
                ),
                "a page of a rare task": _milliseconds(
                    lambda n: utils.job_history(tasks=["rare"], limit=50)
                ),
                "a page of failures": _milliseconds(
                    lambda n: utils.job_history(states=["failed"], limit=50)
                ),
                "failures of a task": _milliseconds(
                    lambda n: utils.job_history(tasks=["task0"], states=["failed"], limit=50)
                ),
            }


def records(bench: Bench) -> None:
    """Complete with and without history, weigh the table of jobs, and read much history."""
    bench.prepare([*BOTH, CHECKED])
    bench.compare(
        "add_job of a payload with ten properties",
        {
            each.name: partial(pgbench_fresh, bench, each, ADD, 1, "-c synchronous_commit=off")
            for each in (CHECKED, OURS)
        },
    )
    for jobs in (1, 100, 750):
        bench.compare(
            f"complete {jobs} with results",
            {each.name: partial(_completed, bench, each, jobs) for each in BOTH},
        )
    for processes in bench.sizes.processes:
        bench.compare(
            f"drain of {bench.sizes.jobs:,}, {processes} process{'es' * (processes > 1)}",
            {
                each.name: partial(drain_rate, bench, each, processes, bench.sizes.jobs)
                for each in BOTH
            },
        )
    bench.compare_all(
        {"table of jobs": " MiB", "its indexes": " MiB"},
        {each.name: partial(_hot_table, bench, each) for each in BOTH},
    )
    rows = int(ROWS * bench.sizes.scale)
    figures = [
        "get_job", "a page of the latest", "the next page", "a page of one task",
        "a page of a rare task", "a page of failures", "failures of a task",
    ]  # fmt: skip
    bench.compare_all(
        dict.fromkeys(figures, " ms"),
        {f"of {rows:,} ended jobs": partial(_read, bench, rows)},
        rounds=1,
    )
