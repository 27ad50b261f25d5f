"""A job, as it is in the database, and what can be said of one that is to be added."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, TypedDict

from graphile_worker import errors

JobKeyMode = Literal["replace", "preserve_run_at", "unsafe_dedupe"]
JobState = Literal["ready", "scheduled", "running", "failed"]


class Job(NamedTuple):
    """A row of the queue, immutable; times are aware.

    A time that Python's calendar does not have (infinity) is its first or last day. Of a job that
    was in the queue before, ``payload`` and ``last_error`` are None for a role below the level
    observe, unless the payload is the one just passed; so are its names, where
    ``job_key_mode="unsafe_dedupe"`` found the job of another task.

    >>> job = add_job("send_email", {"to": "ann@example.org"}, conn=conn)
    >>> job.task_identifier, job.payload
    ('send_email', {'to': 'ann@example.org'})
    """

    id: int
    task_identifier: str
    queue_name: str | None
    payload: Any
    #: The names of its flags.
    flags: frozenset[str]
    #: Lower numbers run first.
    priority: int
    run_at: datetime
    #: How many times the job has been taken.
    attempts: int
    max_attempts: int
    last_error: str | None
    created_at: datetime
    updated_at: datetime
    key: str | None
    #: When a worker took the job; None: it is not running.
    locked_at: datetime | None
    locked_by: str | None
    #: How many times add_job was applied to the job again: 0 where it was added, not changed.
    revision: int
    #: Whether the job may be taken once it is due: unlocked, with attempts left.
    is_available: bool
    task_id: int
    job_queue_id: int | None


class TaskOptions(TypedDict, total=False):
    """The options of TaskSpec, as keyword arguments."""

    queue_name: str | None
    run_at: datetime | timedelta | None
    priority: int | None
    max_attempts: int | None
    job_key: str | None
    job_key_mode: JobKeyMode | None
    flags: Iterable[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """How a job is to be run; None means the default. Reusable and immutable.

    ``run_at`` is an aware datetime, or a timedelta from the database's now. ``priority`` is -32768
    to 32767, lower numbers first, default 0; ``max_attempts`` 1 to 32767, default 25.

    >>> nightly = TaskSpec(queue_name="reports", max_attempts=3)
    >>> add_job("report", {"day": "monday"}, nightly, conn=conn)

    Raise an InvalidArgument for what could not be sent: a wrong type, a number out of range, a time
    without time zone, a NUL character. The other rules are the database's.
    """

    queue_name: str | None = None
    run_at: datetime | timedelta | None = None
    priority: int | None = None
    max_attempts: int | None = None
    job_key: str | None = None
    job_key_mode: JobKeyMode | None = None
    flags: Iterable[str] | None = None

    def __post_init__(self) -> None:
        if self.queue_name is not None:
            _text("queue name", self.queue_name, errors.InvalidQueueName)
        if self.job_key is not None:
            _text("job key", self.job_key, errors.InvalidJobKey)
        if self.job_key_mode is not None:
            _text("job key mode", self.job_key_mode, errors.InvalidJobKeyMode)
        if self.priority is not None:
            _number("priority", self.priority, -32768, errors.InvalidPriority)
        if self.max_attempts is not None:
            _number("max_attempts", self.max_attempts, 1, errors.InvalidMaxAttempts)
        if self.run_at is not None:
            check_run_at(self.run_at)
        if self.flags is not None:
            if isinstance(self.flags, str) or not isinstance(self.flags, Iterable):
                raise errors.InvalidFlags(
                    f"flags is {self.flags!r}: pass a list of texts, such as ['slow']"
                )
            object.__setattr__(self, "flags", tuple(self.flags))
            for flag in self.flags:
                _text("flag", flag, errors.InvalidFlags)


def options_of(spec: TaskSpec) -> tuple[object, ...]:
    """Return the options alone: specs are also equal in their kind, and in what a JobSpec adds."""
    return (
        spec.queue_name, spec.run_at, spec.priority, spec.max_attempts, spec.job_key,
        spec.job_key_mode, spec.flags,
    )  # fmt: skip


def with_options(spec: TaskSpec, options: TaskOptions) -> TaskSpec:
    """Return the spec with some of its options replaced."""
    return replace(spec, **options) if options else spec


@dataclass(frozen=True, slots=True)
class JobSpec(TaskSpec):
    """One job for ``add_jobs``: its task, its payload, and the options of TaskSpec.

    >>> add_jobs([JobSpec("resize", {"id": n}, queue_name="images") for n in range(3)], conn=conn)
    """

    identifier: str
    payload: Any = None

    def __post_init__(self) -> None:
        check_identifier(self.identifier)
        TaskSpec.__post_init__(self)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many jobs there are, by what they wait for.

    >>> utils.counts().ready
    """

    #: Due, or as soon as their queue is free.
    ready: int
    #: To be run later.
    scheduled: int
    running: int
    #: Failed for good: no attempts are left.
    failed: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.ready + self.scheduled + self.running + self.failed


@dataclass(frozen=True, slots=True)
class Pause:
    """What is paused: a task, a queue or all.

    >>> [pause.name for pause in utils.pauses() if pause.until is None]
    """

    scope: Literal["all", "task", "queue"]
    #: One that ends in an asterisk stands for all that begin so.
    name: str
    #: None: until it is resumed.
    until: datetime | None
    reason: str | None
    paused_at: datetime
    paused_by: str


@dataclass(frozen=True, slots=True)
class Limit:
    """How many jobs of a task or queue may run at once, and start in a time.

    >>> [limit.name for limit in utils.limits() if limit.running == limit.max_running]
    """

    scope: Literal["task", "queue"]
    #: One that ends in an asterisk stands for all that begin so, each on its own.
    name: str
    max_running: int | None
    rate: int | None
    per: timedelta | None
    burst: int | None
    #: How many jobs run that it counts.
    running: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """A recurring job that the database keeps.

    >>> [schedule.next_runs[0] for schedule in utils.schedules() if schedule.next_runs]
    """

    name: str
    task: str
    cron: str
    tz: str
    payload: Any
    queue_name: str | None
    priority: int | None
    max_attempts: int | None
    job_key: str | None
    flags: list[str] | None
    catch_up: timedelta
    overlap: Literal["allow", "skip", "replace"]
    is_paused: bool
    #: The next three.
    next_runs: list[datetime]
    last_run_at: datetime | None
    last_job_id: int | None
    #: Why the job of the last run was refused.
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Cleaned:
    """How many things a cleanup removed.

    >>> utils.cleanup("failed_jobs").failed_jobs
    """

    failed_jobs: int = 0
    queues: int = 0
    tasks: int = 0


def check_identifier(identifier: object) -> None:
    """Raise InvalidIdentifier for what is no text."""
    _text("task identifier", identifier, errors.InvalidIdentifier)


def check_run_at(run_at: object) -> None:
    """Raise InvalidRunAt for what does not say a moment."""
    if isinstance(run_at, timedelta):
        return
    if not isinstance(run_at, datetime):
        raise errors.InvalidRunAt(
            f"run_at is {run_at!r}: pass an aware datetime, or a timedelta from the database's now"
        )
    if run_at.utcoffset() is None:
        raise errors.InvalidRunAt(
            f"run_at {run_at.isoformat()} has no time zone, so each machine would take it for"
            " another moment: say datetime.now(timezone.utc), or use a timedelta from now"
        )


def _text(what: str, value: object, error: type[errors.InvalidArgument]) -> None:
    if not isinstance(value, str):
        raise error(f"{what} is {value!r}, of type {type(value).__name__}: pass a str")
    if "\0" in value:
        raise error(f"{what} {value!r} holds a NUL character, which PostgreSQL cannot store")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as cause:
            raise error(
                f"{what} {value!r} holds half of a surrogate pair: {cause.reason}"
            ) from cause


def _number(what: str, value: object, least: int, error: type[errors.InvalidArgument]) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise error(f"{what} is {value!r}, of type {type(value).__name__}: pass an int")
    if not least <= value <= 32767:
        raise error(
            f"{what} is out of range: {value}. Use {least} to 32767, or None for the default"
        )
