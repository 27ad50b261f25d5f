"""Run the tasks of a Celery application here, set its beat schedule, and move what waits.

Copy it beside your application. A module of tasks for `gw run` is then two lines:

    from from_celery import tasks_of
    tasks = tasks_of(app)

and once the Celery workers have stopped, this moves the messages in its broker:

    python from_celery.py shop.celery:app --queue celery --dsn postgresql:///shop
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

from celery import Celery
from celery.schedules import crontab
from graphile_worker import JobSpec, Tasks, WorkerUtils, add_job
from graphile_worker.retry import Discard, RetryAfter
from graphile_worker.worker import context

#: Of tasks that may be retried without end.
FOREVER = 32767


# --- add and run


def delay(conn: Any, task: Any, *args: Any, **kwargs: Any) -> Any:
    """Add a job in the transaction of ``conn``; what ``task.delay(*args, **kwargs)`` was."""
    payload = {"args": list(args), "kwargs": kwargs}
    return add_job(task.name, payload, conn=conn, max_attempts=attempts_of(task))


def attempts_of(task: Any) -> int:
    """Return how often a task runs at most."""
    return FOREVER if task.max_retries is None else int(task.max_retries) + 1


def tasks_of(app: Celery) -> Tasks:
    """Return the tasks of the application under their names, for `gw run`."""
    app.loader.import_default_modules()
    tasks = Tasks()
    for name, task in sorted(app.tasks.items()):
        if not name.startswith("celery."):
            tasks.task(name, max_attempts=attempts_of(task))(_runs(task))
    return tasks


def _runs(task: Any) -> Callable[..., Any]:
    def retry(
        args: Any = None, kwargs: Any = None, exc: BaseException | None = None,
        throw: bool = True, eta: datetime | None = None, countdown: float | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        later = eta or (task.default_retry_delay if countdown is None else countdown)
        raise RetryAfter(later, repr(exc) if exc else None) from exc

    task.retry = retry

    def run(args: list[Any] | None = None, kwargs: dict[str, Any] | None = None) -> Any:
        job = context().job
        task.push_request(
            id=str(job.id), retries=job.attempts - 1, args=args, kwargs=kwargs,
            called_directly=False, is_eager=False,
        )  # fmt: skip
        try:
            return task.run(*(args or []), **(kwargs or {}))
        except RetryAfter:
            raise
        except Exception as error:  # Celery retries what asks for it, and nothing else
            raise Discard("".join(traceback.format_exception(error))) from error
        finally:
            task.pop_request()

    return run


# --- beat


def set_schedules(app: Celery, utils: WorkerUtils) -> list[str]:
    """Set the application's beat schedule in the database; return the names of the schedules."""
    zone = str(app.conf.timezone or "UTC")
    for name, entry in app.conf.beat_schedule.items():
        payload = {"args": list(entry.get("args", ())), "kwargs": entry.get("kwargs", {})}
        cron = cron_of(name, entry["schedule"])
        utils.schedule(name, entry["task"], cron, payload=payload, tz=zone)
    return list(app.conf.beat_schedule)


def cron_of(name: str, schedule: Any) -> str:
    """Return a schedule of beat as a cron expression; raise ValueError if it is none."""
    if isinstance(schedule, crontab):
        return (
            f"{schedule._orig_minute} {schedule._orig_hour} {schedule._orig_day_of_month}"
            f" {schedule._orig_month_of_year} {schedule._orig_day_of_week}"
        ).upper()
    every = schedule if isinstance(schedule, timedelta) else timedelta(seconds=float(schedule))
    minutes, rest = divmod(every, timedelta(minutes=1))
    if not rest and minutes and (60 % minutes == 0 or (minutes % 60 == 0 and 1440 % minutes == 0)):
        return f"*/{minutes} * * * *" if minutes < 60 else f"0 */{minutes // 60} * * *"
    raise ValueError(
        f"{name} runs every {every}, which no cron expression says: let a task add its next job"
        " with run_at"
    )


# --- what waits in the broker


def move_backlog(app: Celery, queues: list[str], utils: WorkerUtils) -> int:
    """Add a job for each message of the queues, and take the messages away; return how many.

    The jobs are added in one transaction, keyed by the ids of the messages, and the messages are
    acknowledged after it has committed. If this ends in between, run it again before workers
    start: each job is added once.
    """
    app.loader.import_default_modules()
    with app.connection_for_read() as conn:
        messages, specs = [], []
        for name in queues:
            waiting = conn.SimpleQueue(name)
            while True:
                try:
                    message = waiting.get(block=False)
                except waiting.Empty:
                    break
                messages.append(message)
                specs.append(_spec(app, message))
        utils.add_jobs(specs)
        for message in messages:
            message.ack()
    return len(messages)


def _spec(app: Celery, message: Any) -> JobSpec:
    args, kwargs, _ = message.payload
    headers = message.headers
    task = app.tasks[headers["task"]]
    left = max(attempts_of(task) - int(headers.get("retries") or 0), 1)
    eta = headers.get("eta")
    return JobSpec(
        headers["task"], {"args": args, "kwargs": kwargs}, job_key=f"celery:{headers['id']}",
        max_attempts=left, run_at=datetime.fromisoformat(eta) if eta else None,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Move a Celery application's backlog and beat.")
    parser.add_argument("app", help="where the application is, such as shop.celery:app")
    parser.add_argument("--queue", action="append", help="a queue of the broker; may be repeated")
    parser.add_argument("--schedules", action="store_true", help="set the beat schedule")
    dsn = os.environ.get("GW_DSN", "")
    parser.add_argument("--dsn", default=dsn, help="connection string of the database")
    options = parser.parse_args()
    module, _, name = options.app.partition(":")
    sys.path.insert(0, "")
    app: Celery = getattr(import_module(module), name or "app")
    with WorkerUtils(options.dsn) as utils:
        if options.schedules:
            print("schedules:", ", ".join(set_schedules(app, utils)))
        if options.queue:
            print("jobs:", move_backlog(app, options.queue, utils))


if __name__ == "__main__":
    main()
