"""Django's tasks, of Django 6 or of the backport django-tasks, whose names differ a little."""

from __future__ import annotations

from typing import Any

from graphile_worker.errors import GraphileWorkerError

try:
    from django.tasks import base, exceptions, signals
    from django.tasks.backends.base import BaseTaskBackend
    from django.utils.json import normalize_json

    default_handler = "django.tasks.task_backends"
    InvalidTask = exceptions.InvalidTask
    InvalidTaskBackend = exceptions.InvalidTaskBackend
except ImportError:
    try:
        from django_tasks import base, exceptions, signals
        from django_tasks.backends.base import BaseTaskBackend
        from django_tasks.utils import normalize_json

        default_handler = "django_tasks.task_backends"
        InvalidTask = exceptions.InvalidTaskError
        InvalidTaskBackend = exceptions.InvalidTaskBackendError
    except ImportError as error:
        raise GraphileWorkerError(
            "Django's tasks are missing: use Django 6, or run `pip install django-tasks`"
        ) from error

TaskResultDoesNotExist = exceptions.TaskResultDoesNotExist
Task, TaskError, TaskResult = base.Task, base.TaskError, base.TaskResult
TaskContext, TaskResultStatus = base.TaskContext, base.TaskResultStatus


def backends() -> Any:
    """Return the handler of the configured backends, by alias."""
    from django.utils.module_loading import import_string

    return import_string(default_handler)


__all__ = [
    "BaseTaskBackend", "InvalidTask", "InvalidTaskBackend", "Task", "TaskContext", "TaskError",
    "TaskResult", "TaskResultDoesNotExist", "TaskResultStatus", "backends", "normalize_json",
    "signals",
]  # fmt: skip
