"""A queue to test on: what is in it, what happens when it is run, and how time goes by."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Unpack

import psycopg

from graphile_worker.client.drivers import SyncConn, run
from graphile_worker.client.statements import Statement, in_schema
from graphile_worker.client.sync import WorkerUtils
from graphile_worker.client.tasks import Task
from graphile_worker.client.verbs import Verb
from graphile_worker.errors import AccessDenied, GraphileWorkerError, InvalidArgument
from graphile_worker.job import Job, JobState, TaskOptions, TaskSpec, check_run_at
from graphile_worker.naming import SCHEMA
from graphile_worker.testing.matching import Expected, Wanted, listed, missing
from graphile_worker.testing.report import Failure, RunReport

if TYPE_CHECKING:
    from graphile_worker.worker.context import Context

__all__ = ["Failure", "Queue", "RunReport", "queue_in"]

_ENQUEUED: tuple[JobState, ...] = ("ready", "scheduled", "running")

# One statement, so that no worker sees the half of it.
_TRAVEL = """with moved as (
  select cast(cast(%(microseconds)s as text) as float8) * interval '1 microsecond' as by
),
jobs as (
  update {s}._private_jobs
  set
    run_at = run_at - moved.by,
    created_at = created_at - moved.by,
    updated_at = updated_at - moved.by,
    locked_at = locked_at - moved.by
  from moved
  returning 1
),
queues as (
  update {s}._private_job_queues
  set locked_at = locked_at - moved.by
  from moved
  where locked_at is not null
  returning 1
),
crontabs as (
  update {s}._private_known_crontabs
  set known_since = known_since - moved.by, last_execution = last_execution - moved.by
  from moved
  returning 1
),
heartbeats as (
  update {s}._private_heartbeats
  set
    started_at = started_at - moved.by,
    heartbeat_at = heartbeat_at - moved.by,
    alive_since = alive_since - moved.by
  from moved
  returning 1
),
crashes as (
  update {s}._private_crashes
  set crashed_at = crashed_at - moved.by
  from moved
  returning 1
)
select pg_catalog.count(*) from jobs"""


class Queue:
    """The queue of a database, as a test sees it; the fixture ``queue`` gives one.

    >>> queue.assert_enqueued("send_email", {"to": "ann@example.org"}, queue_name="emails")
    >>> queue.run_due_jobs(tasks)

    What it does is committed, unless it was made by ``queue_in``. Tasks are named by their
    identifier, or are those of ``Tasks``.
    """

    def __init__(self, dsn: str = "", *, conn: Any = None, schema: str = SCHEMA) -> None:
        self.schema = schema
        self._dsn = dsn
        self._conn = conn
        self._open: list[psycopg.Connection[Any]] = []
        self._own: psycopg.Connection[Any] | None = None
        self._utils: WorkerUtils | None = None
        self._travelled = timedelta()

    @property
    def dsn(self) -> str:
        """The connection string of the database; a queue of ``queue_in`` has none."""
        if self._conn is not None:
            raise GraphileWorkerError("this queue is that of a connection and has no dsn")
        return self._dsn

    @property
    def utils(self) -> WorkerUtils:
        """WorkerUtils of the database, or of the connection of ``queue_in``."""
        if self._utils is None:
            source = self._dsn if self._conn is None else _unaliased(self._conn)
            self._utils = WorkerUtils(source, schema=self.schema, max_connections=4)
        return self._utils

    def connect(self) -> psycopg.Connection[Any]:
        """Return a new connection in autocommit mode, which is closed when the test ends."""
        conn = psycopg.connect(self.dsn, autocommit=True)
        self._open.append(conn)
        return conn

    def close(self) -> None:
        """Close all connections of its own."""
        if self._utils is not None:
            self._utils.close()
        for conn in self._open:
            conn.close()
        self._open.clear()
        self._own = None

    def add_job(
        self, identifier: str, payload: Any = None, spec: TaskSpec | None = None,
        **options: Unpack[TaskOptions],
    ) -> Job:  # fmt: skip
        """Add a job and return it; see the function ``add_job``."""
        return self.utils.add_job(identifier, payload, spec, conn=self._main(), **options)

    def jobs(
        self, task: str | Task[..., Any, Any] | None = None, state: JobState | None = None
    ) -> list[Job]:
        """Return the jobs that there are, by id: all, or those of a task, or in a state."""
        return self._jobs(_name(task), None if state is None else [state])

    def assert_enqueued(
        self,
        task: str | Task[..., Any, Any],
        payload: Any = None,
        *,
        times: int | None = None,
        **expected: Unpack[Expected],
    ) -> list[Job]:
        """Raise AssertionError unless there is such a job, or as many as ``times``; return them.

        The members of ``payload`` must be in that of the job, at any depth; it may have others,
        unless ``exact=True``. See Expected for the other options. The message shows the job that
        comes nearest, and what is in the queue.
        """
        __tracebackhide__ = True
        wanted = self._wanted(task, payload, expected)
        jobs = self._candidates(expected)
        found = [job for job in jobs if not wanted.differences(job)]
        if times is not None and len(found) != times:
            raise AssertionError(
                f"there are {len(found)}, not {times}, of: {wanted}\n{listed(jobs, wanted.now)}"
                if found or not times
                else missing(wanted, jobs)
            )
        if times is None and not found:
            raise AssertionError(missing(wanted, jobs))
        return found

    def assert_not_enqueued(
        self,
        task: str | Task[..., Any, Any] | None = None,
        payload: Any = None,
        **expected: Unpack[Expected],
    ) -> None:
        """Raise AssertionError if there is such a job; without arguments, if there is any."""
        __tracebackhide__ = True
        wanted = self._wanted(task, payload, expected)
        found = [job for job in self._candidates(expected) if not wanted.differences(job)]
        if found:
            raise AssertionError(f"there is a {wanted}\n{listed(found, wanted.now)}")

    def run_due_jobs(
        self,
        tasks: Any,
        *,
        raises: bool = True,
        concurrency: int = 1,
        limit: int = 1000,
        **options: Any,
    ) -> RunReport:
        """Run the jobs that are due, and those that they add, in a worker, until none is due.

        Raise what the first task raised; with ``raises=False`` it is in the report. With
        ``concurrency`` 1 they run in their order. A failed job is due again when its delay is over:
        see ``travel``. Other options are those of ``run_once``. Raise GraphileWorkerError where
        more than ``limit`` jobs ran, as when a job adds itself.
        """
        __tracebackhide__ = True
        if _is_awaited():
            raise GraphileWorkerError("the test is a coroutine: await queue.arun_due_jobs(...)")
        return asyncio.run(
            self.arun_due_jobs(
                tasks, raises=raises, concurrency=concurrency, limit=limit, **options
            )
        )

    async def arun_due_jobs(
        self,
        tasks: Any,
        *,
        raises: bool = True,
        concurrency: int = 1,
        limit: int = 1000,
        **options: Any,
    ) -> RunReport:
        """Do the same as run_due_jobs, in a test that is a coroutine."""
        __tracebackhide__ = True
        if self._conn is not None:
            raise GraphileWorkerError(
                "a worker cannot see jobs that are not committed: use the fixture queue, or call"
                " the tasks"
            )
        from graphile_worker.worker import run_once
        from graphile_worker.worker.events import Events

        report, started = RunReport(), 0
        events = options.pop("events", None) or Events()
        events.on("job:success", "job:error", "job:failed", "job:snoozed")(report._note)

        async def count(context: Context, call_next: Callable[[], Awaitable[Any]]) -> Any:
            nonlocal started
            started += 1
            if started > limit:
                raise too_many
            return await call_next()

        too_many = GraphileWorkerError(
            f"more than {limit} jobs ran: does a job add itself? Else say limit="
        )
        middleware = (count, *options.pop("middleware", ()))
        await run_once(
            tasks, dsn=self._dsn, schema=self.schema, concurrency=concurrency, events=events,
            middleware=middleware, **options,
        )  # fmt: skip
        if started > limit:
            raise too_many
        if raises and report.failed:
            raise report.failed[0].error
        return report

    def travel(self, to: timedelta | datetime) -> None:
        """Let time go by: what is due then, is due now.

        A server's clock cannot be set, so the times of all jobs, locks, crontabs and workers
        are put back by as much. Journeys add up; a datetime is counted from where the queue is by
        now. Python's ``datetime.now()`` and SQL's ``now()`` stay what they are. Raise
        InvalidArgument for a way back, AccessDenied where the role does not own the queue.
        """
        if isinstance(to, datetime):
            check_run_at(to)
            to -= self.now()
        if to < timedelta():
            raise InvalidArgument(f"cannot travel back in time, by {-to}")
        try:
            run(self._main(), self._moved(to))
        except AccessDenied as error:
            raise AccessDenied("only the owner of the queue can travel in time") from error
        self._travelled += to

    def now(self) -> datetime:
        """Return the database's time, and what the queue has travelled on top of that."""
        return run(self._main(), self._now()) + self._travelled

    def _main(self) -> Any:
        if self._conn is None and self._own is None:
            self._own = self.connect()
        return self._own if self._conn is None else self._conn

    def _statement(self, text: str) -> Statement:
        return in_schema("travel", "owner", text, self.schema)

    def _now(self) -> Verb[datetime]:
        ((now,),) = yield self._statement("select pg_catalog.now()"), {}
        found: datetime = now
        return found

    def _moved(self, delta: timedelta) -> Verb[None]:
        microseconds = str(delta // timedelta(microseconds=1))
        yield self._statement(_TRAVEL), {"microseconds": microseconds}

    def _wanted(self, task: Any, payload: Any, expected: Expected) -> Wanted:
        now = self.now() - self._travelled
        return Wanted(_name(task), payload, expected, now, self._travelled)

    def _candidates(self, expected: Expected) -> list[Job]:
        state = expected.get("state")
        return self._jobs(None, _ENQUEUED if state is None else [state])

    def _jobs(self, task: str | None, states: Iterable[JobState] | None) -> list[Job]:
        found: list[Job] = []
        while True:
            page = self.utils.list_jobs(
                tasks=None if task is None else [task], states=states, limit=10000,
                after=found[-1].id if found else None, conn=self._main(),
            )  # fmt: skip
            found += page
            if len(page) < 10000:
                return found


def queue_in(conn: SyncConn, *, schema: str = SCHEMA) -> Queue:
    """Return the queue as a connection of yours sees it, in its transaction.

    >>> queue_in(session).assert_enqueued("send_email")

    ``conn`` is what ``add_job`` takes. Nothing is committed, so a worker cannot run these jobs.
    """
    return Queue(conn=conn, schema=schema)


def _name(task: Any) -> str | None:
    return task.identifier if isinstance(task, Task) else task


def _is_awaited() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _unaliased(conn: Any) -> Any:
    if not isinstance(conn, str):
        return conn
    from django.db import connections

    return connections[conn]
