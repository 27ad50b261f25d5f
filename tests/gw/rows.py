"""Jobs that the tests of gw add, lock and fail."""

from __future__ import annotations

from support.pg import Database

ADD = "select (graphile_worker.add_job(%s, queue_name => %s, job_key => %s)).id"


LOCK = "update graphile_worker._private_jobs set locked_at = now(), locked_by = %s, attempts = attempts + 1 where id = %s"


def add(db: Database, task: str = "t", queue: str | None = None, key: str | None = None) -> int:
    return int(db.value(ADD, task, queue, key))
