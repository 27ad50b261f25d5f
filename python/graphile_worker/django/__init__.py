"""Django: a backend for its tasks, with retries, schedules and results; see docs/django.md.

Works with ``django.tasks`` (Django 6) and with the backport ``django-tasks``. Names are imported at
their first use, since models need Django's settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphile_worker import lazy

if TYPE_CHECKING:
    from graphile_worker.django.backend import GraphileTask, GraphileWorkerBackend
    from graphile_worker.django.discovery import cron, worker_tasks
    from graphile_worker.django.operations import InstallGraphileWorker

__all__ = [
    "GraphileTask", "GraphileWorkerBackend", "InstallGraphileWorker", "cron", "worker_tasks",
]  # fmt: skip

_HOMES = {
    **dict.fromkeys(["GraphileTask", "GraphileWorkerBackend"], "backend"),
    **dict.fromkeys(["cron", "worker_tasks"], "discovery"),
    "InstallGraphileWorker": "operations",
}

__getattr__ = lazy.attributes(__name__, _HOMES)
