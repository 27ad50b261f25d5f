"""The client as it waits and as it is awaited, behind one interface: each test runs on both."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import graphile_worker as sync
import psycopg
from graphile_worker import aio
from support.pg import Database

FACES = ("sync", "async")


class Face:
    """One of the two: call anything of it, and what has to be awaited is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.module: Any = sync if name == "sync" else aio
        self._runner = asyncio.Runner()

    def run(self, result: Any) -> Any:
        async def wait() -> Any:
            return await result

        context = contextvars.copy_context()
        return self._runner.run(wait(), context=context) if inspect.isawaitable(result) else result

    def connect(self, dsn: str, **options: Any) -> Any:
        kind: Any = psycopg.Connection if self.name == "sync" else psycopg.AsyncConnection
        return self.run(kind.connect(dsn, **options))

    def add_job(self, *args: Any, **options: Any) -> sync.Job:
        job: sync.Job = self.run(self.module.add_job(*args, **options))
        return job

    def add_jobs(self, *args: Any, **options: Any) -> list[sync.Job]:
        jobs: list[sync.Job] = self.run(self.module.add_jobs(*args, **options))
        return jobs

    @contextmanager
    def utils(self, source: Any, **options: Any) -> Iterator[Utils]:
        utils = self.module.WorkerUtils(source, **options)
        try:
            yield Utils(self, utils)
        finally:
            self.run(utils.close())

    def close(self) -> None:
        self._runner.close()


class Utils:
    """The verbs of a WorkerUtils of either face."""

    def __init__(self, face: Face, utils: Any) -> None:
        self.face, self.utils = face, utils

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            return self.face.run(getattr(self.utils, verb)(*args, **options))

        return call


def stored(db: Database) -> int:
    """Return how many jobs and names there are."""
    count: int = db.value(
        "select (select count(*) from graphile_worker._private_jobs)"
        " + (select count(*) from graphile_worker._private_tasks)"
        " + (select count(*) from graphile_worker._private_job_queues)"
    )
    return count
