"""Functions as tasks: enqueued with their own parameters, called by a worker or directly."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, Unpack, overload
from zoneinfo import ZoneInfo

from graphile_worker.client import enqueue, verbs
from graphile_worker.client.drivers import AsyncConn, SyncConn, run_either
from graphile_worker.errors import (
    InvalidArgument,
    InvalidConnection,
    InvalidIdentifier,
    InvalidPayload,
)
from graphile_worker.job import (
    Job,
    JobKeyMode,
    JobSpec,
    TaskOptions,
    TaskSpec,
    check_identifier,
    with_options,
)
from graphile_worker.retry import Retry

if TYPE_CHECKING:
    from graphile_worker.crontab import CronItem

P = ParamSpec("P")
R = TypeVar("R")
#: What enqueueing returns: a Job, or an Awaitable of one.
A = TypeVar("A")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a worker runs a task."""

    #: Seconds until it is cancelled; None: it may take as long as it likes.
    timeout: float | None = None
    #: How long a failed job waits; None: as in Node.
    retry: Retry | None = None
    #: Where a function that is no coroutine function runs: a thread, or a process of a pool.
    executor: Literal["thread", "process"] = "thread"
    #: Whether it gets a connection on which its completion commits.
    transaction: bool = False

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.timeout > 0:
            raise InvalidArgument(f"timeout is {self.timeout!r}: pass seconds, more than 0")
        if self.executor not in ("thread", "process"):
            raise InvalidArgument(f"executor is {self.executor!r}: use 'thread' or 'process'")
        if self.transaction and self.executor == "process":
            raise InvalidArgument(
                "transaction=True and executor='process' exclude each other: a process cannot share"
                " the worker's connection. Use executor='thread', or a coroutine function"
            )


_RUN = RunOptions()


class Task(Generic[P, R, A]):
    """A function that jobs run. Made by the decorator ``Tasks.task``; immutable.

    >>> send_email("ann@example.org")          # calls the function
    >>> send_email.add("ann@example.org")      # adds a job that will
    """

    def __init__(
        self, registry: Registry[Any], identifier: str, function: Callable[P, R], spec: TaskSpec,
        conn: Any = None, run: RunOptions = _RUN,
    ) -> None:  # fmt: skip
        self.identifier = identifier
        self.function = function
        self.spec = spec
        self.run = run
        self._registry = registry
        self._conn = conn
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, here and now."""
        return self.function(*args, **kwargs)

    @property
    def crontab(self) -> list[CronItem]:
        """When ``Tasks.cron`` lets it run."""
        return [item for item in self._registry.crontab if item.task == self.identifier]

    def job(self, *args: P.args, **kwargs: P.kwargs) -> JobSpec:
        """Return the job for ``add_jobs``. Raise InvalidPayload for arguments that do not fit.

        >>> add_jobs((send_email.job(to=to) for to in everybody), conn=conn)
        """
        try:
            bound = _signature(self.function).bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidPayload(f"task {self.identifier}: {error}") from error
        payload: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = bound.signature.parameters[name].kind
            payload.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
        spec = self.spec
        return JobSpec(
            self.identifier, payload, queue_name=spec.queue_name, run_at=spec.run_at,
            priority=spec.priority, max_attempts=spec.max_attempts, job_key=spec.job_key,
            job_key_mode=spec.job_key_mode, flags=spec.flags,
        )  # fmt: skip

    def add(self, *args: P.args, **kwargs: P.kwargs) -> A:
        """Add a job that calls the function with these arguments; defaults are left to it.

        >>> send_email.add(to="ann@example.org")

        Raise what ``add_job`` raises; InvalidConnection where the tasks are bound to no WorkerUtils
        and no connection was given.
        """
        return self._registry._add(self.job(*args, **kwargs), self._conn)  # type: ignore[no-any-return]

    @overload
    def with_options(
        self, *, conn: AsyncConn, **options: Unpack[TaskOptions]
    ) -> Task[P, R, Awaitable[Job]]: ...
    @overload
    def with_options(
        self, *, conn: SyncConn, **options: Unpack[TaskOptions]
    ) -> Task[P, R, Job]: ...
    @overload
    def with_options(self, **options: Unpack[TaskOptions]) -> Task[P, R, A]: ...
    def with_options(self, *, conn: Any = None, **options: Unpack[TaskOptions]) -> Task[P, R, Any]:
        """Return the task with other options, or on a connection of yours.

        >>> send_email.with_options(run_at=timedelta(hours=1), conn=conn).add(to="ann@example.org")

        ``add`` then has to be awaited if, and only if, the connection has to.
        """
        spec = with_options(self.spec, options)
        return Task(
            self._registry,
            self.identifier,
            self.function,
            spec,
            self._conn if conn is None else conn,
            self.run,
        )


class Registry(Mapping[str, Task[..., Any, A]]):
    """Tasks by their identifier: what ``Tasks`` is, whether awaited or not."""

    def __init__(self, utils: Any = None) -> None:
        self._utils = utils
        self._tasks: dict[str, Task[..., Any, A]] = {}
        self._crontab: list[CronItem] = []

    def __getitem__(self, identifier: str) -> Task[..., Any, A]:
        return self._tasks[identifier]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def task(
        self,
        identifier: str,
        *,
        timeout: float | None = None,
        retry: Retry | None = None,
        executor: Literal["thread", "process"] = "thread",
        transaction: bool = False,
        **options: Unpack[TaskOptions],
    ) -> Callable[[Callable[P, R]], Task[P, R, A]]:
        """Make a function the task with this identifier, with the options of TaskSpec as defaults.

        >>> @tasks.task("send_email", queue_name="emails")
        ... def send_email(to: str, subject: str = "Hello") -> None: ...

        ``timeout`` (seconds), ``retry`` and ``executor`` say how a worker runs it; see RunOptions.
        With ``transaction=True`` the writes on ``context().transaction`` and the job's completion
        are one transaction.
        The payload is an object of the arguments by name. Raise InvalidIdentifier for one that is
        taken, and InvalidPayload for a function with parameters that have no name to be sent under.
        """
        check_identifier(identifier)
        spec = TaskSpec(**options)
        run = RunOptions(
            timeout=timeout, retry=retry, executor=executor, transaction=transaction
        )  # fmt: skip

        def decorate(function: Callable[P, R]) -> Task[P, R, A]:
            if identifier in self._tasks:
                other = self._tasks[identifier].function
                raise InvalidIdentifier(
                    f"task {identifier!r} is taken, by {other.__module__}.{other.__qualname__}"
                )
            for name, parameter in _signature(function).parameters.items():
                if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                    raise InvalidPayload(
                        f"task {identifier!r}: the parameter {name!r} can only be passed by"
                        " position, but a payload is an object: give it a name"
                    )
            task: Task[P, R, A] = Task(self, identifier, function, spec, run=run)
            self._tasks[identifier] = task
            return task

        return decorate

    def cron(
        self,
        expression: str,
        *,
        id: str | None = None,  # noqa: A002 - as in a crontab
        fill: str | timedelta | None = None,
        payload: Mapping[str, Any] | None = None,
        tz: str | ZoneInfo | None = None,
        max_attempts: int | None = None,
        queue_name: str | None = None,
        priority: int | None = None,
        job_key: str | None = None,
        job_key_mode: JobKeyMode | None = None,
    ) -> Callable[[Callable[P, R]], Task[P, R, A]]:
        """Let a task run at certain times, wherever a worker of these tasks runs.

        >>> @tasks.cron("0 4 * * 1", fill="2d", tz="Europe/London", payload={"kind": "weekly"})
        ... @tasks.task("report", queue_name="reports")
        ... def report(kind: str) -> None: ...

        A plain function becomes the task with its name. Options that are not given are the task's
        own; see ``crontab.cron_item`` for the others. Raise InvalidCrontab for a schedule
        that cannot be used and an id that is in use, InvalidPayload for a payload that lacks a
        parameter of the function or has none for it.
        """
        # Adding jobs needs no scheduler.
        from graphile_worker.crontab import check_identifiers, check_payload, cron_item

        def decorate(function: Callable[P, R]) -> Task[P, R, A]:
            task: Task[P, R, A]
            if isinstance(function, Task):
                task = function
                if task._registry is not self:
                    raise InvalidArgument(
                        f"task {task.identifier!r} is of other tasks than these: use their cron"
                    )
            else:
                task = self.task(function.__name__)(function)
            spec = task.spec
            check_payload(task.identifier, task.function, payload or {})
            item = cron_item(
                expression, task.identifier, id=id, fill=fill, payload=payload, tz=tz,
                max_attempts=spec.max_attempts if max_attempts is None else max_attempts,
                queue_name=spec.queue_name if queue_name is None else queue_name,
                priority=spec.priority if priority is None else priority,
                job_key=spec.job_key if job_key is None else job_key,
                job_key_mode=spec.job_key_mode if job_key_mode is None else job_key_mode,
                flags=spec.flags,
            )  # fmt: skip
            check_identifiers([*self._crontab, item])
            self._crontab.append(item)
            return task

        return decorate

    @property
    def crontab(self) -> list[CronItem]:
        """What ``cron`` was told of its tasks."""
        return list(self._crontab)

    def _add(self, job: JobSpec, conn: Any) -> Any:
        if self._utils is not None:
            if conn is None:
                return self._utils.add_job(job.identifier, job.payload, job)
            settings: verbs.Settings = self._utils._settings
        elif conn is None:
            raise InvalidConnection(
                f"task {job.identifier!r} has no connection to be enqueued through: bind the tasks"
                " to a WorkerUtils, or use with_options(conn=...)"
            )
        else:
            settings = verbs.Settings()
        return run_either(conn, enqueue.add_job(settings, job.identifier, job.payload, job, {}))


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)
