"""Generated from aio.py by `make sql`: edit that.

Add jobs and look after them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

import psycopg

from graphile_worker.client import enqueue, verbs
from graphile_worker.client.drivers import SyncConn, in_one_transaction, run
from graphile_worker.client.tasks import Registry
from graphile_worker.client.utils_sync import WorkerUtils
from graphile_worker.job import Job, JobSpec, TaskOptions, TaskSpec
from graphile_worker.naming import SCHEMA
from graphile_worker.payload import Dumps

__all__ = ["Tasks", "WorkerUtils", "add_job", "add_job_adhoc", "add_jobs"]


def add_job(
    identifier: str,
    payload: Any = None,
    spec: TaskSpec | None = None,
    *,
    conn: SyncConn,
    schema: str = SCHEMA,
    dumps: Dumps | None = None,
    trace: bool = False,
    **options: Unpack[TaskOptions],
) -> Job:
    """Add a job in the transaction of ``conn``, and return it.

    >>> add_job("send_email", {"to": "ann@example.org"}, conn=conn, queue_name="emails")

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
    return run(conn, enqueue.add_job(settings, identifier, payload, spec, options))


def add_jobs(
    jobs: Iterable[JobSpec | tuple[str, Any]],
    spec: TaskSpec | None = None,
    *,
    conn: SyncConn,
    schema: str = SCHEMA,
    dumps: Dumps | None = None,
    trace: bool = False,
    chunk_size: int = 5000,
    **options: Unpack[TaskOptions],
) -> list[Job]:
    """Add many jobs in the transaction of ``conn``; return them in the order given.

    >>> add_jobs((JobSpec("resize", {"id": n}) for n in range(9)), conn=conn)

    A job is a JobSpec with its own options, or a tuple of identifier and payload, to which ``spec``
    and the options apply. The result is that of adding one by one, also where a key occurs twice.
    The jobs may come from a generator: ``chunk_size`` of them make one round trip and one wake-up
    of the workers. All are added or none, except through a SQLAlchemy connection in autocommit
    mode. Raise what ``add_job`` raises, with the place of the job.
    """
    settings = verbs.Settings(schema, dumps, trace)
    with in_one_transaction(conn):
        return run(conn, enqueue.add_jobs(settings, jobs, spec, options, chunk_size))


def add_job_adhoc(
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

    >>> add_job_adhoc("dbname=app", "send_email", {"to": "ann@example.org"})

    Raise what ``add_job`` raises, and psycopg.OperationalError where there is no server.
    """
    with psycopg.Connection.connect(dsn, autocommit=True) as conn:
        return add_job(
            identifier, payload, spec, conn=conn, schema=schema, dumps=dumps, trace=trace, **options
        )


class Tasks(Registry[Job]):
    """Functions as tasks, which can be enqueued with their own parameters.

    >>> tasks = Tasks(WorkerUtils("dbname=app"))
    >>> @tasks.task("send_email", queue_name="emails", max_attempts=5)
    ... def send_email(to: str, subject: str = "Hello") -> None: ...
    >>> send_email.add(to="ann@example.org")
    >>> send_email.with_options(job_key="welcome ann").add("ann@example.org", "Welcome")

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
