"""The settings of a worker, with defaults and checks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from graphile_worker.crontab import CronItem, parse_crontab
from graphile_worker.errors import InvalidArgument
from graphile_worker.naming import SCHEMA
from graphile_worker.worker.context import Middleware
from graphile_worker.worker.events import Events
from graphile_worker.worker.records.results import Redact

#: Flags whose jobs are left alone: a list, or what returns one before each fetch.
ForbiddenFlags = (
    Iterable[str] | Callable[[], Iterable[str] | Awaitable[Iterable[str] | None] | None] | None
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Settings of a worker. All times are in seconds.

    Raise InvalidArgument for a value that cannot be used, InvalidCrontab for a wrong crontab.
    """

    #: Connection string; the PG* variables fill in what it leaves out.
    dsn: str = ""
    #: Connection string for LISTEN, if ``dsn`` is a pooler such as PgBouncer.
    listen_dsn: str | None = None
    #: Whether to LISTEN; if False, the worker only polls.
    listen: bool = True
    schema: str = SCHEMA
    #: Owners of the schema that a superuser trusts: their functions run with its rights.
    trust_owner: Iterable[str] = ()
    #: How many jobs to run at the same time.
    concurrency: int = 10
    #: How many jobs to fetch ahead; None means what runs in about 0.25 s.
    prefetch: int | None = None
    #: After how long a prefetched job that has not started is returned.
    prefetch_ttl: float = 10.0
    #: The longest time between two polls. A worker that becomes idle polls after 1, 2, 4, ...
    #: seconds, and at once when it is notified or the next job is due. A heartbeat that asked
    #: whether a job is due counts as a poll.
    poll_interval: float = 15.0
    #: How long to collect completed jobs, to write many in one statement.
    complete_delay: float = 0.005
    #: The same for failed jobs.
    fail_delay: float = 0.005
    #: How long running jobs may continue after a stop, before they are aborted.
    grace: float = 30.0
    #: More recurring jobs, as the text of a crontab or as items.
    crontab: str | Iterable[CronItem] = ()
    cron_items: tuple[CronItem, ...] = field(init=False)
    forbidden_flags: ForbiddenFlags = None
    events: Events = field(default_factory=Events)
    middleware: tuple[Middleware, ...] = ()
    #: Called with "result" or "error", what is about to be stored, and the job; what it returns is
    #: stored instead.
    redact: Redact | None = None
    #: Whether to use prepared statements; False for PgBouncer before 1.21 in transaction mode.
    prepare: bool = True
    #: How many connections tasks can use at the same time; None means concurrency, at most 10.
    max_connections: int | None = None
    #: How many processes run tasks with ``executor="process"``; None means one per CPU.
    executor_processes: int | None = None

    def __post_init__(self) -> None:
        for name in ("concurrency", "max_connections", "executor_processes"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not 1 <= value <= 10000):
                raise InvalidArgument(f"{name} is {value!r}: use 1 to 10000")
        if self.prefetch is not None and (
            type(self.prefetch) is not int or not 0 <= self.prefetch <= 10000
        ):
            raise InvalidArgument(f"prefetch is {self.prefetch!r}: use 0 to 10000, or None")
        for name, least in (
            ("prefetch_ttl", 0.1), ("poll_interval", 0.05), ("complete_delay", 0.0),
            ("fail_delay", 0.0), ("grace", 0.0),
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
                raise InvalidArgument(f"{name} is {value!r}: use seconds, {least} or more")
        flags = self.forbidden_flags
        if isinstance(flags, str):
            raise InvalidArgument(f"forbidden_flags is {flags!r}: pass a list of texts")
        crontab = self.crontab
        items = parse_crontab(crontab) if isinstance(crontab, str) else crontab
        object.__setattr__(self, "cron_items", tuple(items))
        object.__setattr__(self, "middleware", tuple(self.middleware))
