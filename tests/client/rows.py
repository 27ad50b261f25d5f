"""Jobs that the tests of WorkerUtils compare and lock."""

from __future__ import annotations

from datetime import timedelta

from graphile_worker import Job
from support.pg import Database

HOUR = timedelta(hours=1)


def ids(jobs: list[Job]) -> list[int]:
    return [job.id for job in jobs]


def lock(db: Database, *jobs: Job, ago: str = "0") -> None:
    db.rows(
        f"update graphile_worker._private_jobs set locked_at = now() - interval '{ago}',"
        " locked_by = 'w', attempts = 1 where id = any(%s)",
        ids(list(jobs)),
    )
