"""gw stats: the numbers of the queue, its workers and their speed."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from graphile_worker.cli import flags, tables
from graphile_worker.cli.flags import Parser
from graphile_worker.cli.tables import Table
from graphile_worker.gw.jobs import STATE, STATES
from graphile_worker.gw.queue import Queue, connects, opened
from graphile_worker.gw.values import seconds, since, span, whole

_STATES = ", ".join(
    f"pg_catalog.count(*) filter (where state = '{state}') as {state}" for state in STATES
)
_JOBS = f"(select jobs.*, {STATE} as state from {{s}}.jobs) as jobs"
_ALL = f"""
  select {_STATES},
    coalesce(extract(epoch from pg_catalog.now() - greatest(
      pg_catalog.min(run_at) filter (where state = 'ready'), timestamptz '0001-01-01 00:00+00'
    )), 0)::float8 as oldest_due_seconds,
    pg_catalog.now() as now
  from {_JOBS}
"""
_BY = f"""
  select {{column}} as name, {_STATES} from {_JOBS}
  where {{column}} is not null
  group by {{column}}
  order by ready desc, running desc, scheduled desc, failed desc, name
  limit %(most)s
"""
WORKERS = """
  select workers.worker_id, workers.is_alive, workers.started_at, workers.heartbeat_at,
    workers.task_identifiers, workers.details, coalesce(held.jobs, 0) as jobs
  from {s}.workers left join (
    select locked_by, pg_catalog.count(*) as jobs from {s}.jobs
    where locked_by is not null group by locked_by
  ) as held on held.locked_by = workers.worker_id
  order by workers.is_alive desc, workers.worker_id
  limit %(most)s
"""
OTHERS = """
  select locked_by as worker_id, pg_catalog.count(*) as jobs,
    pg_catalog.min(locked_at) as locked_at
  from {s}.jobs
  where locked_by is not null
  and not exists (select from {s}.workers where workers.worker_id = locked_by)
  group by locked_by order by jobs desc, locked_by limit %(most)s
"""
_PROGRESS = """
  select progress.job_id, jobs.task_identifier, progress.progress::float8 as progress,
    progress.message, progress.reported_at
  from {s}.job_progress as progress join {s}.jobs on jobs.id = progress.job_id
  order by progress.reported_at desc, progress.job_id limit %(most)s
"""
# What the server counts: its processes tell of it late, some within a second and some when idle.
_COUNTED = """
  select n_tup_ins as added, n_tup_del as deleted
  from pg_catalog.pg_stat_user_tables
  where schemaname = %(schema)s and relname = '_private_jobs'
"""


@dataclass(frozen=True)
class Stats:
    """The queue's numbers; ``unseen`` are lock holders without heartbeats, such as Node's."""

    now: datetime
    ready: int
    scheduled: int
    running: int
    failed: int
    #: How long the oldest job that could run has been due; 0: there is none.
    oldest_due_seconds: float
    tasks: list[dict[str, Any]]
    queues: list[dict[str, Any]]
    workers: list[dict[str, Any]]
    unseen: list[dict[str, Any]]
    #: How far running jobs say that they are.
    progress: list[dict[str, Any]]


def read_stats(queue: Queue, most: int = 20) -> Stats:
    """Read the numbers, of at most so many tasks, queues and workers each."""
    with queue.limited(snapshot=True):
        total = queue.row(_ALL)
        tasks = queue.rows(_BY.replace("{column}", "task_identifier"), most=most)
        queues = queue.rows(_BY.replace("{column}", "queue_name"), most=most)
        workers = queue.rows(WORKERS, most=most)
        unseen = queue.rows(OTHERS, most=most)
        progress = queue.rows(_PROGRESS, most=most) if queue.has_controls else []
    return Stats(
        **total, tasks=tasks, queues=queues, workers=workers, unseen=unseen, progress=progress
    )


def counted(queue: Queue) -> tuple[float, int, int]:
    """Return how many jobs were ever added and deleted, as the server counts, and when."""
    with queue.limited(read_only=True):
        row = queue.row(_COUNTED, schema=queue.schema)
    return time.monotonic(), row["added"], row["deleted"]


def speed(before: tuple[float, int, int], after: tuple[float, int, int]) -> dict[str, float]:
    """Return jobs a second that were added and deleted between two counts."""
    length = max(after[0] - before[0], 0.001)
    return {
        "added_per_second": round((after[1] - before[1]) / length, 1),
        "deleted_per_second": round((after[2] - before[2]) / length, 1),
    }


def configure(parser: Parser) -> None:
    """Add the flags of gw stats."""
    connects(parser)
    flags.env(
        parser, "--limit", type=whole(1, 10000), default=20,
        help="the most tasks, queues and workers to show (default 20)",
    )  # fmt: skip
    flags.env(
        parser, "--interval", type=seconds,
        help="measure for this many seconds how many jobs are added and deleted per second",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Print the numbers."""
    if not options.json:
        tables.needed()
    rates: dict[str, float] = {}
    with opened(options) as queue:
        if options.interval:
            before = counted(queue)
            time.sleep(options.interval)
            rates = speed(before, counted(queue))
        stats = read_stats(queue, options.limit)
    tables.show(options, as_json(stats, rates), lambda: all_tables(stats, rates))
    return 0


def as_json(stats: Stats, rates: dict[str, float]) -> dict[str, Any]:
    """Return the numbers as JSON has them."""
    return {**asdict(stats), **rates}


def all_tables(stats: Stats, rates: dict[str, float]) -> list[Table]:
    """Return what is shown."""
    alive = sum(worker["is_alive"] for worker in stats.workers)
    oldest = span(stats.oldest_due_seconds) if stats.ready else ""
    head = ["ready", "scheduled", "running", "failed", "oldest due", "workers alive"]
    row: list[object] = [
        stats.ready, stats.scheduled, stats.running, stats.failed, oldest, alive
    ]  # fmt: skip
    if rates:
        head += ["added/s", "deleted/s"]
        row += [rates["added_per_second"], rates["deleted_per_second"]]
    found = [Table(head, [row])]
    for title, parts in (("task", stats.tasks), ("queue", stats.queues)):
        columns = [title, "ready", "scheduled", "running", "failed"]
        rows = [
            [p["name"], p["ready"], p["scheduled"], p["running"], p["failed"]] for p in parts
        ]  # fmt: skip
        if rows:
            found.append(Table(columns, rows, f"\n{title.title()}s"))
    if stats.progress:
        columns = ["job", "task", "progress", "message", "reported"]
        reports = [
            [
                p["job_id"], p["task_identifier"],
                "" if p["progress"] is None else f"{p['progress']:.0%}", p["message"],
                since(p["reported_at"], stats.now),
            ]
            for p in stats.progress
        ]  # fmt: skip
        found.append(Table(columns, reports, "\nProgress"))
    people: list[list[object]] = [
        [
            w["worker_id"], "alive" if w["is_alive"] else "dead", w["jobs"],
            since(w["heartbeat_at"], stats.now), (w["details"] or {}).get("host"),
            (w["details"] or {}).get("pid"),
        ]
        for w in stats.workers
    ] + [[w["worker_id"], "unseen", w["jobs"], "", None, None] for w in stats.unseen]  # fmt: skip
    if people:
        columns = ["worker", "state", "jobs", "heartbeat", "host", "pid"]
        found.append(Table(columns, people, "\nWorkers (unseen: without heartbeats, as Node's)"))
    return found
