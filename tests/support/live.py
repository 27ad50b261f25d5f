"""A worker at work in a test, under a role that has the level work and no more."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import Any

from graphile_worker.worker import Worker, run_once

from support.pg import Database, wait_for


def work_role(db: Database) -> str:
    """Return the role that the fixture ``db`` has given the level work."""
    return f"{db.name}_work"


def work_dsn(db: Database) -> str:
    """Return the connection string of a worker."""
    return f"{db.dsn} user={work_role(db)}"


def once(db: Database, tasks: Any, **options: Any) -> None:
    asyncio.run(run_once(tasks, dsn=options.pop("dsn", work_dsn(db)), **options))


def add(db: Database, task: str, payload: str = "{}", more: str = "") -> int:
    job: int = db.value(f"select id from graphile_worker.add_job('{task}', '{payload}' {more})")
    return job


def state(db: Database, job: int) -> tuple[Any, ...]:
    return db.row(
        "select attempts, last_error, locked_by, extract(epoch from run_at - updated_at)::float8"
        " from graphile_worker.jobs where id = %s",
        job,
    )


@contextmanager
def running(tasks: Any, db: Database, **options: Any) -> Any:
    """A worker in a thread; leaving stops it and raises what it raised."""
    worker, errors = Worker(tasks, dsn=options.pop("dsn", work_dsn(db)), **options), []

    def body() -> None:
        try:
            asyncio.run(worker.run())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    try:
        wait_for(lambda: errors or worker.health().last_fetch_seconds_ago is not None, "it started")
        yield worker
    finally:
        if thread.is_alive():
            worker._loop.call_soon_threadsafe(worker.stop)
        thread.join(30)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
