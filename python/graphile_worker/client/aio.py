"""Add jobs and look after them, with connections that are awaited.

The synchronous client, sync.py, is generated from this module.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack

import psycopg

from graphile_worker.client import verbs
from graphile_worker.client.drivers import (
    AsyncConn,
    arun,
    in_one_transaction_async,
    is_engine,
    is_pool,
)
from graphile_worker.client.tasks import Registry
from graphile_worker.job import Cleaned, Counts, Job, JobSpec, JobState, TaskOptions, TaskSpec
from graphile_worker.naming import SCHEMA
from graphile_worker.payload import Dumps

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["Tasks", "WorkerUtils", "add_job", "add_job_adhoc", "add_jobs"]

T = TypeVar("T")


async def add_job(
    identifier: str,
    payload: Any = None,
    spec: TaskSpec | None = None,
    *,
    conn: AsyncConn,
    schema: str = SCHEMA,
    dumps: Dumps | None = None,
    trace: bool = False,
    **options: Unpack[TaskOptions],
) -> Job:
    """Add a job in the transaction of ``conn``, and return it.

    >>> await add_job("send_email", {"to": "ann@example.org"}, conn=conn, queue_name="emails")

    The payload is any JSON value, dataclass or pydantic model, or a list of objects for a batch
    job; None means ``{}``. The options are those of TaskSpec; they go before ``spec``. ``dumps``
    turns the payload into JSON in your way; ``trace`` puts the caller's OpenTelemetry context into
    it, as ``_trace``.

    Nothing is committed: the job is there if, and only if, the caller's transaction commits. With
    ``unsafe_dedupe`` the job returned may be another one, which has the key. Raise an
    InvalidArgument for what cannot be added, AccessDenied without the level enqueue, SchemaError
    where there is nothing to call; the driver's own errors pass.
    """
    settings = verbs.Settings(schema, dumps, trace)
    return await arun(conn, verbs.add_job(settings, identifier, payload, spec, options))


async def add_jobs(
    jobs: Iterable[JobSpec | tuple[str, Any]],
    spec: TaskSpec | None = None,
    *,
    conn: AsyncConn,
    schema: str = SCHEMA,
    dumps: Dumps | None = None,
    trace: bool = False,
    chunk_size: int = 5000,
    **options: Unpack[TaskOptions],
) -> list[Job]:
    """Add many jobs in the transaction of ``conn``; return them in the order given.

    >>> await add_jobs((JobSpec("resize", {"id": n}) for n in range(9)), conn=conn)

    A job is a JobSpec with its own options, or a tuple of identifier and payload, to which ``spec``
    and the options apply. The result is that of adding one by one, also where a key occurs twice.
    The jobs may come from a generator: ``chunk_size`` of them make one round trip and one wake-up
    of the workers. All are added or none, except through a SQLAlchemy connection in autocommit
    mode. Raise what ``add_job`` raises, with the place of the job.
    """
    settings = verbs.Settings(schema, dumps, trace)
    async with in_one_transaction_async(conn):
        return await arun(conn, verbs.add_jobs(settings, jobs, spec, options, chunk_size))


async def add_job_adhoc(
    dsn: str,
    identifier: str,
    payload: Any = None,
    spec: TaskSpec | None = None,
    *,
    schema: str = SCHEMA,
    dumps: Dumps | None = None,
    trace: bool = False,
    **options: Unpack[TaskOptions],
) -> Job:
    """Connect, add one job, commit and disconnect. For scripts; WorkerUtils keeps its connections.

    >>> await add_job_adhoc("dbname=app", "send_email", {"to": "ann@example.org"})

    Raise what ``add_job`` raises, and psycopg.OperationalError where there is no server.
    """
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        return await add_job(
            identifier, payload, spec, conn=conn, schema=schema, dumps=dumps, trace=trace, **options
        )


class WorkerUtils:
    """Add jobs and look after them, through connections of its own or yours.

    >>> async with WorkerUtils("dbname=app") as utils:
    ...     await utils.add_job("send_email", {"to": "ann@example.org"})

    ``source`` is a connection string (the PG* variables fill what it leaves out), a pool of
    psycopg_pool, a SQLAlchemy engine, or a connection. Nothing connects before the first verb. A
    connection string gets a pool of up to ``max_connections``; ``prepare=False`` does without
    prepared statements, as pgbouncer before 1.21 needs in transaction mode. Each verb takes
    ``conn`` to run in that connection's transaction instead, which is never committed.

    The first verb checks the schema, and raises SchemaMissing, SchemaTooOld or SchemaTooNew. Later
    ones raise AccessDenied without the level of access that they take: enqueue for adding, observe
    for ``counts``, admin for the others. No verb changes the schema.
    """

    def __init__(
        self,
        source: str | AsyncConn | AsyncConnectionPool[Any] | AsyncEngine = "",
        *,
        schema: str = SCHEMA,
        dumps: Dumps | None = None,
        trace: bool = False,
        prepare: bool = True,
        max_connections: int = 10,
    ) -> None:
        self._source: Any = source
        self._settings = verbs.Settings(schema, dumps, trace)
        self._prepare = prepare
        self._max_connections = max_connections
        self._pool: AsyncConnectionPool[Any] | None = None
        self._opening = asyncio.Lock()
        self._checked = False

    async def __aenter__(self) -> Self:
        """Return itself; nothing connects yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the pool of its own, if any."""
        await self.close()

    async def close(self) -> None:
        """Close the pool of its own, if any; the next verb opens it again.

        >>> await utils.close()
        """
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def _opened(self) -> AsyncConnectionPool[Any]:
        async with self._opening:
            if self._pool is None:
                from psycopg_pool import AsyncConnectionPool

                # A pool tries on in the background; this connection says at once what is wrong.
                async with await psycopg.AsyncConnection.connect(
                    self._source, autocommit=True
                ) as conn:
                    await self._check(conn)
                kwargs: dict[str, Any] = {"autocommit": True}
                if not self._prepare:
                    kwargs["prepare_threshold"] = None
                self._pool = AsyncConnectionPool(
                    self._source, min_size=1, max_size=self._max_connections, kwargs=kwargs,
                    open=False, name="graphile_worker",
                )  # fmt: skip
                await self._pool.open()
            return self._pool

    @asynccontextmanager
    async def _connection(self, conn: AsyncConn | None) -> AsyncIterator[Any]:
        """Give the caller's connection, or one of the source's, whose work is then committed."""
        if conn is not None:
            yield conn
            return
        source: Any = self._source
        if isinstance(source, str):
            source = await self._opened()
        if is_pool(source):
            async with source.connection() as one:
                yield one
        elif is_engine(source):
            async with source.begin() as one:
                yield one
        else:
            yield source

    async def _check(self, conn: Any) -> None:
        if not self._checked:
            await arun(conn, verbs.check(self._settings.schema))
            self._checked = True

    async def _run(self, verb: verbs.Verb[T], conn: AsyncConn | None) -> T:
        async with self._connection(conn) as one:
            await self._check(one)
            return await arun(one, verb)

    async def add_job(
        self,
        identifier: str,
        payload: Any = None,
        spec: TaskSpec | None = None,
        *,
        conn: AsyncConn | None = None,
        **options: Unpack[TaskOptions],
    ) -> Job:
        """Add a job and return it; see the function ``add_job``.

        >>> await utils.add_job("send_email", {"to": "ann@example.org"}, job_key="welcome ann")
        """
        verb = verbs.add_job(self._settings, identifier, payload, spec, options)
        return await self._run(verb, conn)

    async def add_jobs(
        self,
        jobs: Iterable[JobSpec | tuple[str, Any]],
        spec: TaskSpec | None = None,
        *,
        conn: AsyncConn | None = None,
        chunk_size: int = 5000,
        **options: Unpack[TaskOptions],
    ) -> list[Job]:
        """Add many jobs, all or none; see the function ``add_jobs``.

        >>> await utils.add_jobs([("resize", {"id": 1}), ("resize", {"id": 2})], max_attempts=3)
        """
        async with self._connection(conn) as one:
            await self._check(one)
            async with in_one_transaction_async(one):
                verb = verbs.add_jobs(self._settings, jobs, spec, options, chunk_size)
                return await arun(one, verb)

    async def remove_job(self, job_key: str, *, conn: AsyncConn | None = None) -> Job | None:
        """Remove the job with the key and return it, None where there is none.

        A running job is not stopped: it loses its key and will not be tried again.

        >>> await utils.remove_job("welcome ann")
        """
        return await self._run(verbs.remove_job(self._settings, job_key), conn)

    async def complete_jobs(
        self, job_ids: Iterable[int], *, conn: AsyncConn | None = None
    ) -> list[Job]:
        """Delete jobs as if they had been done, and return them. Running ones are left out.

        >>> await utils.complete_jobs([1, 2, 3])
        """
        return await self._run(verbs.complete_jobs(self._settings, job_ids), conn)

    async def permanently_fail_jobs(
        self,
        job_ids: Iterable[int],
        error_message: str | None = None,
        *,
        conn: AsyncConn | None = None,
    ) -> list[Job]:
        """Let jobs fail for good, with the message as last error. Running ones are left out.

        >>> await utils.permanently_fail_jobs([4], "the customer is gone")
        """
        verb = verbs.permanently_fail_jobs(self._settings, job_ids, error_message)
        return await self._run(verb, conn)

    async def reschedule_jobs(
        self,
        job_ids: Iterable[int],
        *,
        run_at: datetime | timedelta | None = None,
        priority: int | None = None,
        attempts: int | None = None,
        max_attempts: int | None = None,
        conn: AsyncConn | None = None,
    ) -> list[Job]:
        """Change when, and how often, jobs run; None leaves alone. Running ones are left out.

        >>> await utils.reschedule_jobs([4], run_at=timedelta(minutes=5), attempts=0)
        """
        verb = verbs.reschedule_jobs(
            self._settings, job_ids, run_at, priority, attempts, max_attempts
        )
        return await self._run(verb, conn)

    async def force_unlock_workers(
        self, worker_ids: Iterable[str], *, conn: AsyncConn | None = None
    ) -> None:
        """Unlock all that these workers hold. For dead ones only: what they run would run twice.

        >>> await utils.force_unlock_workers(["worker-2f1c"])
        """
        await self._run(verbs.force_unlock_workers(self._settings, worker_ids), conn)

    async def cleanup(
        self,
        *what: Literal["failed_jobs", "queues", "tasks"],
        failed_before: datetime | timedelta | None = None,
        keep_tasks: Iterable[str] = (),
        conn: AsyncConn | None = None,
    ) -> Cleaned:
        """Remove what is left over, while workers run; return how much of each.

        ``failed_jobs``: those that have failed for good, before ``failed_before`` only (a moment,
        or a timedelta that they have to be older than). ``queues`` and ``tasks``: names that no job
        needs; without arguments, the queues. Node workers that run know their tasks by number: name
        those in ``keep_tasks``, or restart them.

        Collecting names holds up all adding and taking for one scan of the jobs, and waits for
        transactions that have added jobs: raise Busy where those leave no gap for some seconds. It
        belongs into a transaction of its own, which is read committed.

        >>> await utils.cleanup("failed_jobs", "queues", failed_before=timedelta(days=30))
        """
        verb = verbs.cleanup(self._settings, what or ("queues",), failed_before, keep_tasks)
        return await self._run(verb, conn)

    async def get_job(self, job: int | str, *, conn: AsyncConn | None = None) -> Job | None:
        """Return the job with this id (int) or key (str), None where there is none.

        >>> await utils.get_job("welcome ann")
        """
        return await self._run(verbs.get_job(self._settings, job), conn)

    async def list_jobs(
        self,
        *,
        ids: Iterable[int] | None = None,
        keys: Iterable[str] | None = None,
        tasks: Iterable[str] | None = None,
        queues: Iterable[str] | None = None,
        states: Iterable[JobState] | None = None,
        after: int | None = None,
        limit: int = 100,
        conn: AsyncConn | None = None,
    ) -> list[Job]:
        """Return jobs by id, at most ``limit`` (1 to 10000), from the id ``after`` on.

        Each filter that is given must hold. States are ready, scheduled, running and failed (for
        good). Raise InvalidFilter for an unknown state or a limit out of range.

        >>> await utils.list_jobs(tasks=["send_email"], states=["failed"])
        """
        verb = verbs.list_jobs(
            self._settings, ids=ids, keys=keys, tasks=tasks, queues=queues, states=states,
            after=after, limit=limit,
        )  # fmt: skip
        return await self._run(verb, conn)

    async def counts(self, *, conn: AsyncConn | None = None) -> Counts:
        """Return how many jobs are ready, scheduled, running and failed. Reads the whole table.

        >>> (await utils.counts()).failed
        """
        return await self._run(verbs.counts(self._settings), conn)


class Tasks(Registry[Awaitable[Job]]):
    """Functions as tasks, which can be enqueued with their own parameters.

    >>> tasks = Tasks(WorkerUtils("dbname=app"))
    >>> @tasks.task("send_email", queue_name="emails", max_attempts=5)
    ... async def send_email(to: str, subject: str = "Hello") -> None: ...
    >>> await send_email.add(to="ann@example.org")
    >>> await send_email.with_options(job_key="welcome ann").add("ann@example.org", "Welcome")

    Type checkers check the arguments. The function stays callable directly. Without ``utils`` here,
    give them to ``bind`` when the application starts, or ``conn`` to ``with_options``.
    """

    def __init__(self, utils: WorkerUtils | None = None) -> None:
        super().__init__(utils)

    def bind(self, utils: WorkerUtils) -> None:
        """Enqueue through these utils from now on.

        >>> tasks.bind(WorkerUtils("dbname=app"))
        """
        self._utils = utils
