"""What happens in a worker, for those who listen."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from graphile_worker.errors import InvalidArgument
from graphile_worker.log import logger, shown

if TYPE_CHECKING:
    from graphile_worker.worker.context import ClaimedJob

EventName = Literal[
    "worker:start",  # it is about to take jobs
    "worker:stop",  # it takes no more; what runs goes on for the grace
    "worker:end",  # nothing runs or is locked any more
    "worker:lost",  # it was presumed dead, or a take was cut off; it goes on under a new id
    "pool:error",  # the database could not be reached, or refused; error
    "listen:start",  # LISTEN holds; also after each time it was lost
    "listen:error",  # LISTEN was lost; error
    "fetch",  # jobs were taken: count, seconds
    "job:start",  # a task is about to be called: job
    "job:success",  # it returned: job, seconds
    "job:error",  # it raised, and will be retried: job, error, seconds
    "job:failed",  # it raised, and no attempts are left: job, error, seconds
    "job:cancelled",  # it was told to stop, and did: job, error (a JobCancelled), seconds
    "job:snoozed",  # it asked for a later time: job, seconds
    "job:complete",  # the database knows how the job ended: job, error (None: success)
    "flush",  # results were written: count, seconds
    "recovered",  # jobs of a dead worker were returned: worker_id, count
    "cron:fired",  # a tick added jobs: identifier, at, backfilled
]
EVENT_NAMES: tuple[str, ...] = get_args(EventName)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; fields that do not belong to its name are None."""

    name: str
    #: The id under which the worker holds jobs.
    worker_id: str
    job: ClaimedJob | None = None
    error: BaseException | None = None
    seconds: float | None = None
    count: int | None = None
    #: What else the event brings, by name.
    data: dict[str, Any] | None = None


Handler = Callable[[Event], object]


class Events:
    """Handlers of events, called in the worker's loop in the order in which they were added.

    >>> @events.on("job:failed")
    ... def page(event):
    ...     pager.send(f"{event.job.task_identifier}: {event.error}")

    A handler must be quick, and must not be a coroutine function: start a task of your own for
    anything that waits. What a handler raises is logged and never stops the worker.
    """

    def __init__(self) -> None:
        self._handlers: dict[str, list[Handler]] = defaultdict(list)

    def on(self, *names: str) -> Callable[[Handler], Handler]:
        """Call the function at each event with one of these names; without names, at all.

        Raise InvalidArgument for a name that no event has, and for a coroutine function.
        """
        for name in names:
            if name not in EVENT_NAMES:
                raise InvalidArgument(f"event {name!r} is unknown: use {', '.join(EVENT_NAMES)}")

        def add(handler: Handler) -> Handler:
            if inspect.iscoroutinefunction(handler):
                raise InvalidArgument(
                    f"handler {handler!r} is a coroutine function, which would never be awaited:"
                    " let it start a task"
                )
            for name in names or EVENT_NAMES:
                self._handlers[name].append(handler)
            return handler

        return add

    def wanted(self, name: str) -> bool:
        """Whether anybody listens: making an event for no one costs time in each job."""
        return name in self._handlers

    def emit(self, event: Event) -> None:
        """Call the handlers; log what they raise."""
        for handler in self._handlers.get(event.name, ()):
            try:
                handler(event)
            except BaseException as error:  # also SystemExit: a job's outcome may wait behind it
                logger.error("a handler of %s failed: %s", event.name, shown(error))
