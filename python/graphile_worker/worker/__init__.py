"""Run jobs: the Python worker.

>>> import asyncio
>>> from graphile_worker.worker import run
>>> asyncio.run(run({"send_email": send_email}, dsn="dbname=app"))
"""

from graphile_worker.retry import Discard, PauseQueue, PauseTask, Retry, RetryAfter, Snooze
from graphile_worker.worker.context import ClaimedJob, Context, Middleware, context
from graphile_worker.worker.events import Event, Events
from graphile_worker.worker.options import WorkerOptions
from graphile_worker.worker.worker import Health, Worker, run, run_once

__all__ = [
    "ClaimedJob",
    "Context",
    "Discard",
    "Event",
    "Events",
    "Health",
    "Middleware",
    "PauseQueue",
    "PauseTask",
    "Retry",
    "RetryAfter",
    "Snooze",
    "Worker",
    "WorkerOptions",
    "context",
    "run",
    "run_once",
]
