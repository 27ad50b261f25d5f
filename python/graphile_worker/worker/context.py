"""What a task can know and do while it runs: its job, a logger, connections, and when to stop."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, TypeVar, Unpack

import psycopg

from graphile_worker import add_job, add_jobs, aio
from graphile_worker.client.tracing import Server
from graphile_worker.errors import GraphileWorkerError, InvalidArgument
from graphile_worker.job import Job, JobSpec, TaskOptions, TaskSpec
from graphile_worker.naming import SCHEMA

T = TypeVar("T")


#: Where PostgreSQL counts microseconds from.
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def _column(number: int) -> Any:
    return property(itemgetter(number))


def _time(number: int) -> Any:
    """Return a property for a time as PostgreSQL sends it: few tasks ask, so it is read late."""

    def read(job: tuple[Any, ...]) -> datetime:
        since = int.from_bytes(job[number], "big", signed=True)
        try:
            return _EPOCH + timedelta(microseconds=since)
        except OverflowError:  # PostgreSQL's calendar is longer, and has no end
            return (datetime.max if since > 0 else datetime.min).replace(tzinfo=UTC)

    return property(read)


def _read_flags(job: tuple[Any, ...]) -> dict[str, bool] | None:
    return None if job[15] is None else json.loads(job[15])


class ClaimedJob(tuple[Any, ...]):
    """A job that a worker has taken, immutable; times are aware.

    A time that Python's calendar does not have is the first or the last one that it has.
    """

    __slots__ = ()

    id: int = _column(0)
    task_identifier: str = _column(1)
    payload: Any = _column(2)
    queue_name: str | None = _column(3)
    priority: int = _column(4)
    run_at: datetime = _time(5)
    #: This one included.
    attempts: int = _column(6)
    max_attempts: int = _column(7)
    #: What the attempt before this one said.
    last_error: str | None = _column(8)
    created_at: datetime = _time(9)
    updated_at: datetime = _time(10)
    key: str | None = _column(11)
    locked_at: datetime = _time(12)
    #: The id of the worker that holds the job.
    locked_by: str = _column(13)
    revision: int = _column(14)
    flags: dict[str, bool] | None = property(_read_flags)  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<job {self.id}, task {self.task_identifier}, attempt {self.attempts}>"


class AbortSignal:
    """Set when the task should stop: at its time-out, or when the worker's grace is over.

    Safe to ask from any thread: ``is_set()`` and ``wait(seconds)``. A coroutine is cancelled, too,
    and needs no signal.
    """

    #: Why to stop; None: go on.
    reason: str | None = None
    #: The worker leaves within seconds.
    is_forced = False
    #: Made when a thread waits for it, which takes longer than many a task.
    _event: threading.Event | None = None
    _lock = threading.Lock()

    def is_set(self) -> bool:
        """Whether to stop."""
        return self.reason is not None

    def wait(self, seconds: float | None = None) -> bool:
        """Block the calling thread until it is set or the seconds are over; return is_set()."""
        with self._lock:
            if self.reason is not None:
                return True
            event = self._event = self._event or threading.Event()
        return event.wait(seconds)

    def set(self, reason: str) -> None:
        """Tell the task to stop."""
        with self._lock:
            self.reason = self.reason or reason
            if self._event is not None:
                self._event.set()


#: Takes note of how far a job is: its context, a fraction and a message.
Report = Callable[["Context", float | None, str | None], None]
Connect = Callable[[], AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]]


class Context:
    """What belongs to the run of one job; ``context()`` returns the current one.

    In a coroutine, await ``add_job`` and ``add_jobs`` and use ``async with connection()``. A task
    that runs in a thread calls ``add_job_sync`` and ``add_jobs_sync``.
    """

    __slots__ = (
        "_connect",
        "_logger",
        "_loop",
        "_report",
        "abort",
        "job",
        "schema",
        "server",
        "transaction_conn",
    )

    def __init__(
        self, job: ClaimedJob, connect: Connect, loop: asyncio.AbstractEventLoop | None = None,
        schema: str = SCHEMA, report: Report | None = None, server: Server | None = None,
    ) -> None:  # fmt: skip
        self.job = job
        self.abort = AbortSignal()
        self.schema = schema
        #: Host and port of the database's server, where they are known.
        self.server = server
        self._connect = connect
        self._loop, self._report = loop, report
        #: Of a task with ``transaction=True``, as long as it runs.
        self.transaction_conn: Any = None
        self._logger: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry job_id, task_identifier, queue_name and attempt."""
        if self._logger is None:
            job = self.job
            self._logger = logging.LoggerAdapter(
                logging.getLogger("graphile_worker.task"),
                {
                    "job_id": job.id,
                    "task_identifier": job.task_identifier,
                    "queue_name": job.queue_name,
                    "attempt": job.attempts,
                },
            )
        return self._logger

    @property
    def queue_name(self) -> str | None:
        """The queue of the job."""
        return self.job.queue_name

    def progress(self, fraction: float | None, message: str | None = None) -> None:
        """Tell how far the job is: 0 to 1 (None: unknown), and a text for people.

        Call it as often as you like, from a coroutine or a thread: the latest is written once a
        second, without waiting for it. ``gw job``, ``gw top`` and the view job_progress show it.
        Raise InvalidArgument for a fraction out of range.

        >>> context().progress(0.4, "copied 40 of 100")
        """
        if fraction is not None and not 0 <= fraction <= 1:
            raise InvalidArgument(f"progress is {fraction!r}: pass 0 to 1, or None if unknown")
        if message is not None:
            message = str(message).replace("\0", "\\x00")[:1000]
            message = message.encode("utf-8", "backslashreplace").decode()
        if self._report is not None and self._loop is not None:
            fraction = None if fraction is None else float(fraction)
            self._loop.call_soon_threadsafe(self._report, self, fraction, message)

    def connection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]:
        """Lend a connection of the worker's pool, in a transaction that is committed at the end.

        In a task with ``transaction=True`` it is that of the task, which commits with the job.

        >>> async with context().connection() as conn:
        ...     await conn.execute("update ...")
        """
        if self.transaction_conn is not None:
            return nullcontext(self.transaction)
        return self._connect()

    @property
    def transaction(self) -> Any:
        """The connection on which the job's completion will commit, in a transaction.

        It is an AsyncConnection of psycopg in a coroutine, and a Connection in a thread. The
        worker commits it when the task returns, and rolls it back when it raises. Raise
        GraphileWorkerError in a task that was not made with ``transaction=True``.

        >>> await context().transaction.execute("update accounts set ...")
        """
        if self.transaction_conn is None:
            raise GraphileWorkerError(
                f"task {self.job.task_identifier} runs in no transaction: make it with"
                " @tasks.task(..., transaction=True)"
            )
        return self.transaction_conn

    def session(self) -> Any:
        """Lend a session of SQLAlchemy on the connection of ``transaction``.

        An AsyncSession in a coroutine, to be used by ``async with``; a Session in a thread. Its
        ``commit`` ends a savepoint: the worker commits. Raise what ``transaction`` raises.

        >>> async with context().session() as session:
        ...     session.add(Payment(...))
        """
        from graphile_worker.worker.executors import transaction

        conn = self.transaction
        if isinstance(conn, transaction.AsyncTaskConnection):
            return transaction.async_session_on(conn)
        return transaction.session_on(conn)

    async def add_job(
        self, identifier: str, payload: Any = None, spec: TaskSpec | None = None,
        **options: Unpack[TaskOptions],
    ) -> Job:  # fmt: skip
        """Add a job in a transaction of its own; arguments and errors are those of ``add_job``."""
        async with self.connection() as conn:
            return await aio.add_job(
                identifier, payload, spec, conn=conn, schema=self.schema, **options
            )

    async def add_jobs(
        self, jobs: Iterable[JobSpec | tuple[str, Any]], spec: TaskSpec | None = None,
        **options: Unpack[TaskOptions],
    ) -> list[Job]:  # fmt: skip
        """Add many jobs in one transaction; arguments and errors are those of ``add_jobs``."""
        async with self.connection() as conn:
            return await aio.add_jobs(jobs, spec, conn=conn, schema=self.schema, **options)

    def add_job_sync(
        self, identifier: str, payload: Any = None, spec: TaskSpec | None = None,
        **options: Unpack[TaskOptions],
    ) -> Job:  # fmt: skip
        """Add a job from a task that runs in a thread."""
        if self.transaction_conn is not None:
            return add_job(
                identifier, payload, spec, conn=self.transaction, schema=self.schema, **options
            )
        return self._wait(self.add_job(identifier, payload, spec, **options))

    def add_jobs_sync(
        self, jobs: Iterable[JobSpec | tuple[str, Any]], spec: TaskSpec | None = None,
        **options: Unpack[TaskOptions],
    ) -> list[Job]:  # fmt: skip
        """Add many jobs from a task that runs in a thread."""
        if self.transaction_conn is not None:
            return add_jobs(jobs, spec, conn=self.transaction, schema=self.schema, **options)
        return self._wait(self.add_jobs(jobs, spec, **options))

    def _wait(self, verb: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            verb.close()
            raise GraphileWorkerError("this task has no worker's loop to add jobs through")
        return asyncio.run_coroutine_threadsafe(verb, self._loop).result()


_current: ContextVar[Context] = ContextVar("graphile_worker_context")


def context() -> Context:
    """Return the context of the job that runs here; raise GraphileWorkerError outside of one."""
    try:
        return _current.get()
    except LookupError as error:
        raise GraphileWorkerError("no job is running here: context() is for tasks") from error


#: A middleware is called around each task: ``async def middleware(context, call_next)``, and
#: returns what ``await call_next()`` returned, or something else, or raises.
Middleware = Callable[[Context, Callable[[], Awaitable[Any]]], Awaitable[Any]]
