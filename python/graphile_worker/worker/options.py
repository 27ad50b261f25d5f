"""How a worker behaves: every setting, its default and its check."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from graphile_worker.crontab import CronItem, parse_crontab
from graphile_worker.errors import InvalidArgument
from graphile_worker.naming import SCHEMA
from graphile_worker.worker.context import Middleware
from graphile_worker.worker.events import Events

#: Flags whose jobs are left alone: a list, or what returns one before each take.
ForbiddenFlags = (
    Iterable[str] | Callable[[], Iterable[str] | Awaitable[Iterable[str] | None] | None] | None
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The settings of a worker; all times are seconds.

    Raise InvalidArgument for a value that cannot be used, InvalidCrontab for a wrong crontab.
    """

    #: A connection string; the PG* variables fill what it leaves out.
    dsn: str = ""
    #: Where to LISTEN, when ``dsn`` leads to a pooler such as pgbouncer.
    listen_dsn: str | None = None
    #: False: only poll.
    listen: bool = True
    schema: str = SCHEMA
    #: Owners of the schema whose functions may run with the rights of a superuser who connects.
    trust_owner: Iterable[str] = ()
    #: How many jobs run at once.
    concurrency: int = 10
    #: How many jobs are taken ahead of a free place; None: what runs in a quarter of a second.
    prefetch: int | None = None
    #: After how long a job that was taken ahead and not started is given back.
    prefetch_ttl: float = 10.0
    #: The longest sleep between two looks at the queue. A worker that becomes idle looks after one
    #: second, two, four and so on, and at once when it is notified or the next job is due; where a
    #: heartbeat has looked within the interval, none of its own is needed.
    poll_interval: float = 15.0
    #: How long to collect jobs that are done, so that one statement tells of many.
    complete_delay: float = 0.005
    #: The same for jobs that failed.
    fail_delay: float = 0.005
    #: How long running jobs may go on after a stop is asked for, before they are aborted.
    grace: float = 30.0
    #: Recurring jobs beside those of the tasks: a crontab's text, or items.
    crontab: str | Iterable[CronItem] = ()
    cron_items: tuple[CronItem, ...] = field(init=False)
    forbidden_flags: ForbiddenFlags = None
    events: Events = field(default_factory=Events)
    middleware: tuple[Middleware, ...] = ()
    #: Prepared statements; False as pgbouncer before 1.21 needs in transaction mode.
    prepare: bool = True
    #: Connections that tasks can have at once; None: as many as jobs, at most 10.
    max_connections: int | None = None
    #: Processes for tasks with ``executor="process"``; None: one for each core.
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
