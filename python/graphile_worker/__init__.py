"""A job queue that a PostgreSQL database installs like any other extension.

>>> from graphile_worker import add_job
>>> add_job("send_email", {"to": "ann@example.org"}, conn=conn)

``graphile_worker.aio`` has the same names for connections that are awaited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphile_worker import lazy

if TYPE_CHECKING:
    from graphile_worker.client.sync import Tasks, WorkerUtils, add_job, add_job_adhoc, add_jobs
    from graphile_worker.client.tasks import Task
    from graphile_worker.errors import GraphileWorkerError
    from graphile_worker.job import Cleaned, Counts, Job, JobSpec, Limit, Pause, Schedule, TaskSpec

__version__ = "1.1.0"
__all__ = [
    "Cleaned",
    "Counts",
    "GraphileWorkerError",
    "Job",
    "JobSpec",
    "Limit",
    "Pause",
    "Schedule",
    "Task",
    "TaskSpec",
    "Tasks",
    "WorkerUtils",
    "__version__",
    "add_job",
    "add_job_adhoc",
    "add_jobs",
]

_CLIENT = ["Tasks", "WorkerUtils", "add_job", "add_job_adhoc", "add_jobs"]
_HOMES = {
    **dict.fromkeys(_CLIENT, "client.sync"),
    **dict.fromkeys(
        ["Cleaned", "Counts", "Job", "JobSpec", "Limit", "Pause", "Schedule", "TaskSpec"], "job"
    ),
    "GraphileWorkerError": "errors",
    "Task": "client.tasks",
}

__getattr__ = lazy.attributes(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
