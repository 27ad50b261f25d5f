"""The backend of Django's tasks: enqueue in the caller's transaction, and read results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.core import checks
from django.db import connections, transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from graphile_worker.client import drivers, enqueue, verbs
from graphile_worker.client.records import verbs as records
from graphile_worker.client.records.model import JobRecord
from graphile_worker.django.framework import (
    BaseTaskBackend,
    InvalidTask,
    Task,
    TaskError,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    signals,
)
from graphile_worker.errors import (
    InvalidArgument,
)
from graphile_worker.job import JobKeyMode, TaskSpec
from graphile_worker.naming import SCHEMA

#: The flag of jobs that are routed to a queue; workers may forbid flags.
QUEUE_FLAG = "queue:"
#: Begins the line of an error that names its class.
CLASS = "class: "
_STATES = {
    "ready": "READY", "scheduled": "READY", "running": "RUNNING", "completed": "SUCCESSFUL",
}  # fmt: skip
_OPTIONS = {"database", "schema", "max_attempts", "modules"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphileTask(Task):  # type: ignore[misc]
    """A task of Django with a job's own options.

    ``job_key`` and ``job_key_mode``: see docs/job-keys.md. ``max_attempts``: 1 does not retry.
    ``serial``: tasks with the same name run one at a time, in order.
    """

    job_key: str | None = None
    job_key_mode: JobKeyMode | None = None
    max_attempts: int | None = None
    serial: str | None = None

    def using(self, **changes: Any) -> Any:
        """Return the task with other options: Django's, and those of a job."""
        return replace(
            self, **{name: value for name, value in changes.items() if value is not None}
        )


class GraphileWorkerBackend(BaseTaskBackend):  # type: ignore[misc]
    """Puts tasks into the queue of a database of Django, on the connection of the caller.

    Options: ``database`` (alias, default "default"), ``schema``, ``max_attempts`` (of tasks that
    do not say) and ``modules`` (that have tasks, beside the module ``tasks`` of each app).
    """

    task_class = GraphileTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self.database: str = self.options.get("database", "default")
        self.settings = verbs.Settings(self.options.get("schema", SCHEMA))

    def validate_task(self, task: Any) -> None:
        """Raise InvalidTask for a task that cannot be enqueued, with the reason."""
        super().validate_task(task)
        try:
            self._spec(task)
        except InvalidArgument as error:
            raise InvalidTask(str(error)) from error

    def _spec(self, task: Any) -> TaskSpec:
        most = getattr(task, "max_attempts", None)
        return TaskSpec(
            priority=-task.priority,
            run_at=None if task.run_after is None else _aware(task.run_after),
            flags=[f"{QUEUE_FLAG}{task.queue_name}"],
            max_attempts=self.options.get("max_attempts") if most is None else most,
            job_key=getattr(task, "job_key", None),
            job_key_mode=getattr(task, "job_key_mode", None),
            queue_name=getattr(task, "serial", None),
        )

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Add the job in the transaction that the connection is in, if any; never commit.

        Send the signal task_enqueued. Raise InvalidTask for a task that is not valid, TypeError
        for arguments that JSON has not, and what add_job raises.
        """
        self.validate_task(task)
        result = self._result(task, list(args), dict(kwargs))
        payload = {"args": result.args, "kwargs": result.kwargs, "backend": self.alias}
        verb = enqueue.add_job(self.settings, task.module_path, payload, self._spec(task), {})
        try:
            job = drivers.run(self.database, verb)
        except InvalidArgument as error:
            raise InvalidTask(str(error)) from error
        object.__setattr__(result, "id", str(job.id))
        object.__setattr__(result, "enqueued_at", _local(job.created_at))
        signals.task_enqueued.send(type(self), task_result=result)
        return result

    def _result(self, task: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return TaskResult(
            task=task, id="", status=TaskResultStatus.READY, enqueued_at=None, started_at=None,
            last_attempted_at=None, finished_at=None, args=args, kwargs=kwargs,
            backend=self.alias, errors=[], worker_ids=[],
        )  # fmt: skip

    def get_result(self, result_id: str) -> Any:
        """Return what is known of a task by its result's id.

        A task that has ended is known if its history is kept (``keep_history``). Raise
        TaskResultDoesNotExist for one that is not known.
        """
        id_ = int(result_id) if str(result_id).isdecimal() else 0
        if not 0 < id_ < 2**63:
            raise TaskResultDoesNotExist(result_id)
        with transaction.atomic(using=self.database):  # so that an error does not end the caller's
            record = drivers.run(self.database, records.find_job(self.settings, id_))
        if record is None:
            raise TaskResultDoesNotExist(result_id)
        try:
            task = import_string(record.task_identifier)
        except ImportError as error:
            raise TaskResultDoesNotExist(result_id) from error
        if not isinstance(task, Task):
            raise TaskResultDoesNotExist(result_id)
        return self._recorded(task.using(backend=self.alias), record)

    def _recorded(self, task: Any, record: JobRecord) -> Any:
        payload = record.payload if isinstance(record.payload, dict) else {}
        result = self._result(task, payload.get("args", []), payload.get("kwargs", {}))
        attempts = record.attempt_log
        workers = [attempt.worker_id for attempt in attempts if attempt.worker_id]
        starts = [attempt.started_at for attempt in attempts if attempt.started_at]
        if record.state == "running" and record.worker_id:
            workers.append(record.worker_id)
            starts += [record.started_at] if record.started_at else []
        texts = [attempt.error for attempt in attempts if attempt.error]
        if record.error and not texts and record.state != "running":
            texts = [record.error]
        values = {
            "id": str(record.id),
            "status": TaskResultStatus[_STATES.get(record.state, "FAILED")],
            "enqueued_at": _local(record.created_at),
            "started_at": _local(starts[0]) if starts else None,
            "last_attempted_at": _local(starts[-1]) if starts else None,
            "finished_at": _local(record.finished_at) if record.finished_at else None,
            "errors": [error_of(text) for text in texts],
            "worker_ids": workers,
            "_return_value": record.result,
        }
        for name, value in values.items():
            object.__setattr__(result, name, value)
        return result

    def check(self, **kwargs: Any) -> Iterable[checks.CheckMessage]:
        """Check the settings; what needs the database is checked by ``check --database``."""
        unknown = set(self.options) - _OPTIONS
        if unknown:
            yield checks.Error(
                f"TASKS[{self.alias!r}] has unknown OPTIONS: {', '.join(sorted(unknown))}",
                hint=f"Use {', '.join(sorted(_OPTIONS))}.", id="graphile_worker.E001",
            )  # fmt: skip
        if self.database not in connections.settings:
            yield checks.Error(
                f"TASKS[{self.alias!r}] names the database {self.database!r}, which is not in"
                " DATABASES",
                hint="Set OPTIONS['database'] to one of its names.", id="graphile_worker.E002",
            )  # fmt: skip
        elif connections[self.database].vendor != "postgresql":
            yield checks.Error(
                f"TASKS[{self.alias!r}] uses the database {self.database!r}, which is not"
                " PostgreSQL",
                hint="Set OPTIONS['database'] to a PostgreSQL database.",
                id="graphile_worker.E003",
            )  # fmt: skip


def error_of(text: str) -> Any:
    """Return an error of Django from the text that a worker wrote, whose last line is its class."""
    before, found, path = text.rstrip().rpartition(CLASS)
    if not found or "\n" in path:
        before, path = text, "builtins.Exception"
    return TaskError(exception_class_path=path, traceback=_in_pythons_order(before.rstrip()))


def _in_pythons_order(text: str) -> str:
    """Return the text of an error as Python prints a traceback: the message after the frames."""
    message, found, rest = text.partition("\n  File ")
    if not found:
        return f"{text}\n"
    frames, notes = f"  File {rest}".splitlines(), list[str]()
    while not frames[-1].startswith("  "):
        notes.insert(0, frames.pop())
    return "\n".join(["Traceback (most recent call last):", *frames, message, *notes, ""])


def _aware(value: datetime) -> datetime:
    return value.astimezone() if value.tzinfo is None else value


def _local(value: datetime) -> datetime:
    from django.conf import settings

    return value if settings.USE_TZ else timezone.make_naive(value)
