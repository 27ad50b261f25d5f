"""Add and claim jobs through SQL."""

from __future__ import annotations

from typing import Any

import psycopg
from support.pg import Database

TAKE = "select id from graphile_worker.get_jobs(%s, %s, %s, %s)"


def add(db: Database, task: str = "t", **options: Any) -> int:
    names = "".join(f", {name} := %s" for name in options)
    job: int = db.value(
        f"select id from graphile_worker.add_job(%s{names})", task, *options.values()
    )
    return job


def take(
    db: Database | psycopg.Connection[Any],
    worker: str = "w",
    n: int = 100,
    tasks: list[str] | None = None,
    flags: list[str] | None = None,
) -> list[int]:
    if isinstance(db, Database):
        return db.column(TAKE, worker, n, tasks, flags)
    return [row[0] for row in db.execute(TAKE, (worker, n, tasks, flags))]


def backlog(db: Database, count: int, queues: int = 2) -> None:
    """Put jobs behind locked queues at the head of the order."""
    db.rows(
        "insert into graphile_worker._private_job_queues (queue_name, locked_at, locked_by)"
        " select 'stuck' || i, now(), 'x' from generate_series(1, %s) i",
        queues,
    )
    db.rows(
        "insert into graphile_worker._private_jobs (task_id, job_queue_id, run_at)"
        " select 1, 1 + i %% %s, now() - interval '1 day' + i * interval '1 ms'"
        " from generate_series(1, %s) i",
        queues,
        count,
    )
