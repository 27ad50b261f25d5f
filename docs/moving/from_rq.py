"""Run the functions of RQ's jobs here, and move what waits in Redis.

Copy it beside your application. A module of tasks for `gw run` is then two lines:

    from from_rq import tasks_of
    tasks = tasks_of(["shop.jobs.send_email", "shop.jobs.resize"])

and once the RQ workers have stopped, this moves the waiting jobs:

    python from_rq.py --redis redis://localhost --queue default --dsn postgresql:///shop
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from datetime import UTC
from importlib import import_module
from typing import Any

from graphile_worker import JobSpec, Tasks, WorkerUtils, add_job
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.registry import ScheduledJobRegistry


def enqueue(conn: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Add a job in the transaction of ``conn``; what ``queue.enqueue(function, ...)`` was."""
    name = f"{function.__module__}.{function.__qualname__}"
    return add_job(name, {"args": list(args), "kwargs": kwargs}, conn=conn, max_attempts=1)


def tasks_of(names: list[str]) -> Tasks:
    """Return functions as tasks under the names that RQ gives them, for `gw run`."""
    tasks = Tasks()
    for name in names:
        module, _, function = name.rpartition(".")
        tasks.task(name, max_attempts=1)(_runs(getattr(import_module(module), function)))
    return tasks


def _runs(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(args: list[Any] | None = None, kwargs: dict[str, Any] | None = None) -> Any:
        return function(*(args or []), **(kwargs or {}))

    return run


def move_backlog(redis: Redis, queues: list[str], utils: WorkerUtils) -> int:
    """Add a job for each one that waits or is scheduled, and delete it there; return how many.

    The jobs are added in one transaction, keyed by their ids there, and deleted in Redis after it
    has committed. If this ends in between, run it again before workers start: each job is added
    once. Arguments that JSON does not have raise an error, and nothing is moved.
    """
    moved: list[Job] = []
    specs: list[JobSpec] = []
    for name in queues:
        queue = Queue(name, connection=redis)
        for job in queue.get_jobs():
            moved.append(job)
            specs.append(_spec(job))
        scheduled = ScheduledJobRegistry(queue=queue)  # type: ignore[no-untyped-call]
        for waits in Job.fetch_many(scheduled.get_job_ids(), connection=redis):
            if waits is not None:
                when = scheduled.get_scheduled_time(waits)
                moved.append(waits)
                specs.append(_spec(waits, run_at=when.replace(tzinfo=when.tzinfo or UTC)))
    utils.add_jobs(specs)
    for job in moved:
        job.delete()
    return len(moved)


def _spec(job: Job, **options: Any) -> JobSpec:
    payload = {"args": list(job.args), "kwargs": job.kwargs}
    attempts = 1 + int(job.retries_left or 0)
    name, key = str(job.func_name), f"rq:{job.id}"
    return JobSpec(name, payload, job_key=key, max_attempts=attempts, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description="Move the waiting jobs of RQ.")
    parser.add_argument("--redis", default="redis://localhost", help="URL of Redis")
    parser.add_argument("--queue", action="append", required=True, help="may be repeated")
    dsn = os.environ.get("GW_DSN", "")
    parser.add_argument("--dsn", default=dsn, help="connection string of the database")
    options = parser.parse_args()
    sys.path.insert(0, "")
    with WorkerUtils(options.dsn) as utils:
        print("jobs:", move_backlog(Redis.from_url(options.redis), options.queue, utils))


if __name__ == "__main__":
    main()
