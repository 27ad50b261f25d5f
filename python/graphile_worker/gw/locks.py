"""gw queues, unlock and cleanup: queues, their locks, and leftover rows."""

from __future__ import annotations

import argparse
from typing import Any

from graphile_worker.cli import flags, progress, tables
from graphile_worker.cli.flags import Parser
from graphile_worker.cli.tables import Table
from graphile_worker.client import drivers, verbs
from graphile_worker.errors import InvalidArgument
from graphile_worker.gw.queue import Queue, agreed, connects, opened
from graphile_worker.gw.values import duration, many, plain, since, whole

_QUEUES = """
    select queues.queue_name, queues.locked_at, queues.locked_by, waiting.ready,
      waiting.scheduled, waiting.failed, waiting.running_job, pg_catalog.now() as now
    from (
      select * from {s}.queues
      where (%(names)s::text[] is null or queue_name = any (%(names)s::text[]))
      and (not %(locked)s or locked_at is not null)
    ) as queues
    left join (
      select queue_name,
        pg_catalog.count(*) filter (where locked_at is null and attempts < max_attempts
          and run_at <= pg_catalog.now()) as ready,
        pg_catalog.count(*) filter (where locked_at is null and attempts < max_attempts
          and run_at > pg_catalog.now()) as scheduled,
        pg_catalog.count(*) filter (where locked_at is null and attempts >= max_attempts) as failed,
        pg_catalog.min(id) filter (where locked_at is not null) as running_job
      from {s}.jobs
      where queue_name is not null
      and (%(names)s::text[] is null or queue_name = any (%(names)s::text[]))
      group by queue_name
    ) as waiting on waiting.queue_name = queues.queue_name
    order by waiting.ready desc nulls last, queues.locked_at, queues.queue_name
    limit %(limit)s
"""
# Whom the view does not know may be a Node worker, which says nothing of itself.
_HOLDERS = """
    select given.worker_id, coalesce(workers.is_alive, false) as is_alive, workers.heartbeat_at,
      (select pg_catalog.count(*) from {s}.jobs where jobs.locked_by = given.worker_id) as jobs,
      (select pg_catalog.count(*) from {s}.queues
        where queues.locked_by = given.worker_id) as queues,
      pg_catalog.now() as now
    from pg_catalog.unnest(%(ids)s::text[]) as given (worker_id)
    left join {s}.workers on workers.worker_id = given.worker_id
"""


def configure_queues(parser: Parser) -> None:
    """Add the flags of gw queues."""
    connects(parser)
    flags.env(parser, "--queue", several=True, help="this queue; may be repeated")
    flags.env(parser, "--locked", switch=True, help="only those that are locked")
    flags.env(
        parser, "--limit", type=whole(1, 1_000_000), default=100,
        help="the most queues to show (default 100)",
    )  # fmt: skip


def run_queues(options: argparse.Namespace) -> int:
    """Show queues, those with most to do first."""
    if not options.json:
        tables.needed()
    with opened(options) as queue, queue.limited(read_only=True):
        rows = queue.rows(_QUEUES, names=options.queue, locked=options.locked, limit=options.limit)
    columns = ("queue", "ready", "scheduled", "failed", "locked", "by worker", "running job")
    table = Table(
        columns,
        [
            (
                row["queue_name"], row["ready"] or 0, row["scheduled"] or 0, row["failed"] or 0,
                since(row["locked_at"], row["now"]), row["locked_by"], row["running_job"],
            )
            for row in rows
        ],
        nothing="no queue",
    )  # fmt: skip
    found: list[dict[str, Any]] = [
        {
            "queue_name": row["queue_name"], "ready": row["ready"] or 0,
            "scheduled": row["scheduled"] or 0, "failed": row["failed"] or 0,
            "locked_at": row["locked_at"] and row["locked_at"].isoformat(),
            "locked_by": row["locked_by"], "running_job": row["running_job"],
        }
        for row in rows
    ]  # fmt: skip
    tables.show(options, found, lambda: [table])
    return 0


def configure_unlock(parser: Parser) -> None:
    """Add the flags of gw unlock."""
    connects(parser)
    parser.add_argument(
        "workers",
        nargs="*",
        metavar="WORKER",
        help="id of a worker that is dead, as shown in locked_by",
    )
    parser.add_argument(
        "--force", action="store_true", help="unlock even a living worker: its jobs run twice"
    )
    flags.env(
        parser, "--dead", switch=True,
        help="everything held by workers that are presumed dead, or locked for four hours",
    )  # fmt: skip
    flags.env(
        parser,
        "--queues",
        switch=True,
        help="queues that are locked although none of their jobs is running",
    )


def run_unlock(options: argparse.Namespace) -> int:
    """Unlock jobs and queues that no worker works on."""
    ways = (bool(options.workers), options.dead, options.queues)
    if options.workers:  # they win over variables
        ways = (True, False, False)
    if not any(ways):
        raise InvalidArgument("say what to unlock: WORKER..., --dead or --queues")
    with opened(options) as queue, queue.limited():
        done: dict[str, Any] = {}
        if ways[0]:
            done |= _unlock_workers(queue, list(dict.fromkeys(options.workers)), options.force)
        if ways[1]:
            done |= unlock_dead(queue)
        if ways[2]:
            done["unlocked_queues"] = unlock_queues(queue)
    lines = [
        *(
            f"Worker {plain(row['worker_id'])}: freed {many(row['jobs'], 'job')} and"
            f" {many(row['queues'], 'queue')}."
            for row in done.get("workers", [])
        ),
        *(
            [
                f"Freed {many(done['stale_jobs'], 'job')} and"
                f" {many(done['stale_queues'], 'queue')} that had been"
                " locked for four hours."
            ]
            if done.get("stale_jobs") or done.get("stale_queues") else []
        ),
        *(f"Unlocked queue {plain(name)}." for name in done.get("unlocked_queues", [])),
    ]  # fmt: skip
    flags.out(options, done, "\n".join(lines) or "Nothing to unlock.")
    return 0


def _unlock_workers(queue: Queue, ids: list[str], force: bool) -> dict[str, Any]:
    rows = queue.rows(_HOLDERS, ids=ids)
    for row in rows:
        if row["is_alive"] and not force:
            heartbeat = since(row["heartbeat_at"], row["now"])
            raise InvalidArgument(
                f"worker {row['worker_id']!r} is alive, its last heartbeat came {heartbeat}:"
                " stop it, or"
                " say --force and have its jobs run twice; nothing was unlocked"
            )
        if not row["jobs"] and not row["queues"]:
            raise InvalidArgument(
                f"worker {row['worker_id']!r} holds no job and no queue: check the spelling, `gw"
                " jobs --state running` shows the holders; nothing was unlocked"
            )
    queue.utils.force_unlock_workers(ids)
    return {
        "workers": [{name: row[name] for name in ("worker_id", "jobs", "queues")} for row in rows]
    }


def unlock_dead(queue: Queue) -> dict[str, Any]:
    """Return what dead workers hold, and what has been locked for four hours."""
    rows = queue.rows("select * from {s}.recover_dead_workers()")
    stale = queue.row("select * from {s}.release_stale_locks()")
    return {
        "workers": [
            {
                "worker_id": r["dead_worker_id"],
                "jobs": r["released_jobs"],
                "queues": r["released_queues"],
            }
            for r in rows
        ],
        "stale_jobs": stale["released_jobs"],
        "stale_queues": stale["released_queues"],
    }


def unlock_queues(queue: Queue, names: list[str] | None = None) -> list[str]:
    """Unlock queues none of whose jobs is locked; return their names."""
    rows = queue.rows("select {s}.unlock_queues(%(names)s::text[]) as name", names=names)
    return [row["name"] for row in rows]


def configure_cleanup(parser: Parser) -> None:
    """Add the flags of gw cleanup."""
    flags.connects(parser, several=True)
    parser.set_defaults(timeout=30.0)  # of the questions; deleting takes as long as it takes
    parser.add_argument(
        "what", nargs="*", metavar="WHAT",
        help="failed-jobs (permanently failed jobs), queues, tasks (unused names); default: queues",
    )  # fmt: skip
    flags.env(
        parser, "--older-than", type=duration,
        help="only jobs that failed at least this long ago, such as 30d",
    )  # fmt: skip
    flags.env(
        parser, "--keep-task", several=True,
        help="keep the name of this task, for running Node workers; may be repeated",
    )  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="do not ask before deleting jobs")


def run_cleanup(options: argparse.Namespace) -> int:
    """Delete old failed jobs and unused names."""
    known = {"failed-jobs": "failed_jobs", "queues": "queues", "tasks": "tasks"}
    for name in options.what:
        if name not in known:
            raise InvalidArgument(
                f"{name!r} is unknown: use {', '.join(known)}; nothing was removed"
            )
    what: list[Any] = [known[name] for name in dict.fromkeys(options.what)] or ["queues"]
    if options.older_than is not None and not options.what:
        raise InvalidArgument("--older-than is for failed-jobs: name them; nothing was removed")
    with opened(options) as queue:
        if "failed_jobs" in what and not options.yes:
            with queue.limited():
                failed = queue.utils.counts().failed
            age = f" those older than {options.older_than}" if options.older_than else " all"
            agreed(options, f"{many(failed, 'job')} permanently failed;{age} will be deleted")
        with progress.bar(f"clean up {', '.join(options.what) or 'queues'}") as bar:
            cleaned = drivers.run(
                queue.conn,
                verbs.cleanup(
                    queue.utils._settings, tuple(what), options.older_than,
                    options.keep_task or (), lambda jobs: bar.note(f"{jobs} jobs deleted"),
                ),
            )  # fmt: skip
    flags.out(
        options, cleaned,
        f"Removed {many(cleaned.failed_jobs, 'failed job')}, the names of"
        f" {many(cleaned.queues, 'queue')} and of {many(cleaned.tasks, 'task')}.",
    )  # fmt: skip
    return 0
