"""Settings, backends and runner with which Django's own tests of tasks run on the queue.

Where they use Django's dummy backend, ours enqueues; where they use its immediate one, ours
enqueues and a worker runs the job before `enqueue` returns.
"""

from __future__ import annotations

import asyncio
import os
import threading
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar

from django.db import connections
from django.test import SimpleTestCase
from django.test.runner import DiscoverRunner
from graphile_worker.django import GraphileWorkerBackend

SECRET_KEY = "of a test"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"],
        "USER": os.environ["PGUSER"], "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"],
    }
}  # fmt: skip
INSTALLED_APPS = ["graphile_worker.django"]
TEST_RUNNER = "django_suite.Runner"

_FORGET = """
    truncate graphile_worker._private_jobs, graphile_worker._private_history,
      graphile_worker._private_attempts;
    select setval('graphile_worker.jobs_id_seq1', 1000)
"""


class Runner(DiscoverRunner):  # type: ignore[misc]
    """Uses the database as it is, which has the queue."""

    def setup_databases(self, **options: Any) -> list[Any]:
        return []

    def teardown_databases(self, *args: Any, **options: Any) -> None: ...


class DatabaseTestCase(SimpleTestCase):  # type: ignore[misc]
    databases: ClassVar = {"default"}


class Enqueues(GraphileWorkerBackend):
    """Also does what Django's tests ask of their dummy: keeps results, and forgets all."""

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self.results: list[Any] = []

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        result = super().enqueue(task, args, kwargs)
        self.results.append(copy(result))
        return result

    def clear(self) -> None:
        self.results.clear()
        with connections[self.database].cursor() as cursor:
            cursor.execute(_FORGET)


class EnqueuesAndRuns(GraphileWorkerBackend):
    def _spec(self, task: Any) -> Any:
        return replace(super()._spec(task), max_attempts=1)

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        result = super().enqueue(task, args, kwargs)
        worker = threading.Thread(target=_work)
        worker.start()
        worker.join()
        return self.get_result(result.id)


def _work() -> None:
    from graphile_worker.django.discovery import worker_tasks
    from graphile_worker.worker import run_once

    dsn = "host={HOST} port={PORT} user={USER} dbname={NAME}".format(**DATABASES["default"])
    asyncio.run(run_once(worker_tasks(), dsn=dsn))
