"""Generated from utils_aio.py by `make sql`: edit that.

WorkerUtils.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack

import psycopg

from graphile_worker.client import enqueue, verbs
from graphile_worker.client.control_sync import ControlUtils
from graphile_worker.client.drivers import (
    SyncConn,
    in_one_transaction,
    is_engine,
    is_pool,
    run,
)
from graphile_worker.client.records.utils_sync import RecordUtils
from graphile_worker.job import Cleaned, Counts, Job, JobSpec, JobState, TaskOptions, TaskSpec
from graphile_worker.naming import SCHEMA
from graphile_worker.payload import Dumps

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool
    from sqlalchemy import Engine

__all__ = ["WorkerUtils"]

T = TypeVar("T")


class WorkerUtils(ControlUtils, RecordUtils):
    """Add jobs and manage the queue, with its own connections or yours.

    >>> with WorkerUtils("dbname=app") as utils:
    ...     utils.add_job("send_email", {"to": "ann@example.org"})

    ``source`` is a connection string (the PG* variables fill in what it leaves out), a pool of
    psycopg_pool, a SQLAlchemy engine, or a connection. It connects at the first call. A connection
    string gets a pool of up to ``max_connections``. ``prepare=False`` turns prepared statements
    off, for PgBouncer before 1.21 in transaction mode. Pass ``conn`` to a verb to run it in that
    connection's transaction, which is never committed.

    The first call checks the schema and raises SchemaMissing, SchemaTooOld or SchemaTooNew. A verb
    raises AccessDenied if the role lacks its access level: enqueue for adding, observe for
    ``counts``, admin for the others. No verb changes the schema.
    """

    def __init__(
        self,
        source: str | SyncConn | ConnectionPool[Any] | Engine = "",
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
        self._pool: ConnectionPool[Any] | None = None
        self._opening = threading.Lock()
        self._checked = False

    def __enter__(self) -> Self:
        """Return itself; nothing connects yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the pool of its own, if any."""
        self.close()

    def close(self) -> None:
        """Close the pool of its own, if any; the next verb opens it again.

        >>> utils.close()
        """
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _opened(self) -> ConnectionPool[Any]:
        with self._opening:
            if self._pool is None:
                from psycopg_pool import ConnectionPool

                # A pool tries on in the background; this connection says at once what is wrong.
                with psycopg.Connection.connect(
                    self._source, autocommit=True
                ) as conn:
                    self._check(conn)
                kwargs: dict[str, Any] = {"autocommit": True}
                if not self._prepare:
                    kwargs["prepare_threshold"] = None
                self._pool = ConnectionPool(
                    self._source, min_size=1, max_size=self._max_connections, kwargs=kwargs,
                    open=False, name="graphile_worker",
                )  # fmt: skip
                self._pool.open()
            return self._pool

    @contextmanager
    def _connection(self, conn: SyncConn | None) -> Iterator[Any]:
        """Give the caller's connection, or one of the source's, whose work is then committed."""
        if conn is not None:
            yield conn
            return
        source: Any = self._source
        if isinstance(source, str):
            source = self._opened()
        if is_pool(source):
            with source.connection() as one:
                yield one
        elif is_engine(source):
            with source.begin() as one:
                yield one
        else:
            yield source

    def _check(self, conn: Any) -> None:
        if not self._checked:
            run(conn, verbs.check(self._settings.schema))
            self._checked = True

    def _run(self, verb: verbs.Verb[T], conn: SyncConn | None) -> T:
        with self._connection(conn) as one:
            self._check(one)
            return run(one, verb)

    def add_job(
        self,
        identifier: str,
        payload: Any = None,
        spec: TaskSpec | None = None,
        *,
        conn: SyncConn | None = None,
        **options: Unpack[TaskOptions],
    ) -> Job:
        """Add a job and return it; see the function ``add_job``.

        >>> utils.add_job("send_email", {"to": "ann@example.org"}, job_key="welcome ann")
        """
        verb = enqueue.add_job(self._settings, identifier, payload, spec, options)
        return self._run(verb, conn)

    def add_job_to_route(
        self,
        route: str,
        identifier: str,
        payload: Any = None,
        spec: TaskSpec | None = None,
        *,
        conn: SyncConn | None = None,
        **options: Unpack[TaskOptions],
    ) -> int:
        """Add a job on the node of a Citus cluster that holds the route, and return its id.

        Raise InvalidRoute without a route, or where ``gw-install citus`` has not run. Without Citus
        it is ``add_job``.

        >>> utils.add_job_to_route("customer:42", "send_invoice", {"month": 11})
        """
        verb = enqueue.add_job_to_route(self._settings, route, identifier, payload, spec, options)
        return self._run(verb, conn)

    def add_jobs_to_route(
        self,
        route: str,
        jobs: Iterable[JobSpec | tuple[str, Any]],
        spec: TaskSpec | None = None,
        *,
        conn: SyncConn | None = None,
        **options: Unpack[TaskOptions],
    ) -> list[int]:
        """Add many jobs on the node of a Citus cluster that holds the route; return their ids.

        All or none are added, in one call. Raise InvalidRoute as ``add_job_to_route``.

        >>> utils.add_jobs_to_route("customer:42", [("resize", {"id": 1})], max_attempts=3)
        """
        verb = enqueue.add_jobs_to_route(self._settings, route, jobs, spec, options)
        return self._run(verb, conn)

    def add_jobs(
        self,
        jobs: Iterable[JobSpec | tuple[str, Any]],
        spec: TaskSpec | None = None,
        *,
        conn: SyncConn | None = None,
        chunk_size: int = 5000,
        **options: Unpack[TaskOptions],
    ) -> list[Job]:
        """Add many jobs, all or none; see the function ``add_jobs``.

        >>> utils.add_jobs([("resize", {"id": 1}), ("resize", {"id": 2})], max_attempts=3)
        """
        with self._connection(conn) as one:
            self._check(one)
            with in_one_transaction(one):
                verb = enqueue.add_jobs(self._settings, jobs, spec, options, chunk_size)
                return run(one, verb)

    def remove_job(self, job_key: str, *, conn: SyncConn | None = None) -> Job | None:
        """Remove the job with the key and return it; return None if there is none.

        A running job is not stopped: it loses its key and will not be retried.

        >>> utils.remove_job("welcome ann")
        """
        return self._run(verbs.remove_job(self._settings, job_key), conn)

    def complete_jobs(
        self, job_ids: Iterable[int], *, conn: SyncConn | None = None
    ) -> list[Job]:
        """Complete jobs: delete and return them. Running jobs are left out.

        >>> utils.complete_jobs([1, 2, 3])
        """
        return self._run(verbs.complete_jobs(self._settings, job_ids), conn)

    def permanently_fail_jobs(
        self,
        job_ids: Iterable[int],
        error_message: str | None = None,
        *,
        conn: SyncConn | None = None,
    ) -> list[Job]:
        """Fail jobs permanently, with the message as last error. Running jobs are left out.

        >>> utils.permanently_fail_jobs([4], "the customer is gone")
        """
        verb = verbs.permanently_fail_jobs(self._settings, job_ids, error_message)
        return self._run(verb, conn)

    def reschedule_jobs(
        self,
        job_ids: Iterable[int],
        *,
        run_at: datetime | timedelta | None = None,
        priority: int | None = None,
        attempts: int | None = None,
        max_attempts: int | None = None,
        conn: SyncConn | None = None,
    ) -> list[Job]:
        """Change when, and how many times, jobs run; None keeps a value. Running jobs are left out.

        >>> utils.reschedule_jobs([4], run_at=timedelta(minutes=5), attempts=0)
        """
        verb = verbs.reschedule_jobs(
            self._settings, job_ids, run_at, priority, attempts, max_attempts
        )
        return self._run(verb, conn)

    def force_unlock_workers(
        self, worker_ids: Iterable[str], *, conn: SyncConn | None = None
    ) -> None:
        """Unlock all that these workers hold. For dead ones only: what they run would run twice.

        >>> utils.force_unlock_workers(["worker-2f1c"])
        """
        self._run(verbs.force_unlock_workers(self._settings, worker_ids), conn)

    def cleanup(
        self,
        *what: Literal["failed_jobs", "queues", "tasks"],
        failed_before: datetime | timedelta | None = None,
        keep_tasks: Iterable[str] = (),
        conn: SyncConn | None = None,
    ) -> Cleaned:
        """Remove what is left over, while workers run; return how much of each.

        ``failed_jobs``: those that permanently failed, before ``failed_before`` only (a moment,
        or a timedelta that they have to be older than). ``queues`` and ``tasks``: names that no job
        needs; without arguments, the queues. Node workers that run know their tasks by number: name
        those in ``keep_tasks``, or restart them.

        Collecting names holds up all adding and taking for one scan of the jobs, and waits for
        transactions that have added jobs: raise Busy where those leave no gap for some seconds. It
        belongs into a transaction of its own, which is read committed.

        >>> utils.cleanup("failed_jobs", "queues", failed_before=timedelta(days=30))
        """
        verb = verbs.cleanup(self._settings, what or ("queues",), failed_before, keep_tasks)
        return self._run(verb, conn)

    def get_job(self, job: int | str, *, conn: SyncConn | None = None) -> Job | None:
        """Return the job with this id (int) or key (str), None where there is none.

        >>> utils.get_job("welcome ann")
        """
        return self._run(verbs.get_job(self._settings, job), conn)

    def list_jobs(
        self,
        *,
        ids: Iterable[int] | None = None,
        keys: Iterable[str] | None = None,
        tasks: Iterable[str] | None = None,
        queues: Iterable[str] | None = None,
        states: Iterable[JobState] | None = None,
        after: int | None = None,
        limit: int = 100,
        conn: SyncConn | None = None,
    ) -> list[Job]:
        """Return jobs by id, at most ``limit`` (1 to 10000), from the id ``after`` on.

        Each filter that is given must hold. States are ready, scheduled, running and failed (for
        good). Raise InvalidFilter for an unknown state or a limit out of range.

        >>> utils.list_jobs(tasks=["send_email"], states=["failed"])
        """
        verb = verbs.list_jobs(
            self._settings, ids=ids, keys=keys, tasks=tasks, queues=queues, states=states,
            after=after, limit=limit,
        )  # fmt: skip
        return self._run(verb, conn)

    def counts(self, *, conn: SyncConn | None = None) -> Counts:
        """Return how many jobs are ready, scheduled, running and failed. Reads the whole table.

        >>> (utils.counts()).failed
        """
        return self._run(verbs.counts(self._settings), conn)
