"""When a job that failed runs again, and what a task raises to decide that itself."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from graphile_worker.errors import InvalidArgument
from graphile_worker.job import check_run_at


@dataclass(frozen=True, slots=True)
class Retry:
    """How long a failed job waits, by the number of its attempts; made by the class methods.

    >>> Retry.exponential(first=1, factor=2, cap=600, jitter=0.1).delay(3)  # about 4 seconds

    All delays are seconds. Without a policy, a job waits exp(least(attempts, 10)) seconds, which is
    2.7 seconds after the first attempt and 6 hours after the tenth, as in Node.
    """

    first: float
    step: float = 0.0
    factor: float = 1.0
    cap: float = math.inf
    jitter: float = 0.0
    listed: tuple[float, ...] = ()

    @classmethod
    def constant(cls, seconds: float, *, jitter: float = 0.0) -> Retry:
        """Wait the same time after each attempt."""
        return cls(first=seconds, jitter=jitter)._checked()

    @classmethod
    def linear(
        cls, first: float, step: float, *, cap: float = math.inf, jitter: float = 0.0
    ) -> Retry:
        """Wait ``first`` seconds, then ``step`` more after each attempt, at most ``cap``."""
        return cls(first=first, step=step, cap=cap, jitter=jitter)._checked()

    @classmethod
    def exponential(
        cls, first: float = 1.0, factor: float = 2.0, *, cap: float = math.inf, jitter: float = 0.0
    ) -> Retry:
        """Wait ``first`` seconds, then ``factor`` times longer each time, up to ``cap``."""
        return cls(first=first, factor=factor, cap=cap, jitter=jitter)._checked()

    @classmethod
    def delays(cls, seconds: Sequence[float], *, jitter: float = 0.0) -> Retry:
        """Wait these times in turn; the last one again after all further attempts."""
        if not seconds:
            raise InvalidArgument("delays is empty: pass at least one number of seconds")
        return cls(first=seconds[0], jitter=jitter, listed=tuple(seconds))._checked()

    def _checked(self) -> Retry:
        for name in ("first", "step", "factor", "cap"):
            value = getattr(self, name)
            if math.isnan(value) or value < 0:
                raise InvalidArgument(f"{name} is {value!r}: pass 0 or more")
        for value in self.listed:
            if not (math.isfinite(value) and value >= 0):
                raise InvalidArgument(f"a delay is {value!r}: pass seconds, 0 or more")
        if not 0 <= self.jitter <= 1:
            raise InvalidArgument(f"jitter is {self.jitter!r}: pass a part of the delay, 0 to 1")
        return self

    def delay(self, attempts: int) -> float:
        """Return the seconds to wait after so many attempts, at least one."""
        if self.listed:
            seconds = self.listed[min(attempts, len(self.listed)) - 1]
        else:
            try:
                seconds = self.first * self.factor ** (attempts - 1) + self.step * (attempts - 1)
            except OverflowError:
                seconds = math.inf
        # No date is further off than this.
        seconds = min(seconds, self.cap, 100 * 365 * 86400.0)
        return seconds * random.uniform(1 - self.jitter, 1 + self.jitter)


class TaskOutcome(Exception):  # noqa: N818 - not an error: what a task decides about its job
    """What a task raises to decide what becomes of its job."""


class RetryAfter(TaskOutcome):
    """Fail this attempt, and retry after so many seconds, a timedelta, or at a time.

    >>> raise RetryAfter(60, "the mail server is busy")

    The attempt is used up; after the last one the job permanently failed.
    """

    def __init__(self, delay: float | timedelta | datetime, reason: str | None = None) -> None:
        self.when = _moment(delay)
        super().__init__(reason or f"Tried again after {delay}")


class Snooze(TaskOutcome):
    """Run the job again after so many seconds, a timedelta, or at a time; no attempt is used up.

    >>> raise Snooze(timedelta(minutes=5))
    """

    def __init__(self, delay: float | timedelta | datetime, reason: str | None = None) -> None:
        self.when = _moment(delay)
        super().__init__(reason or f"Snoozed for {delay}")


class Discard(TaskOutcome):
    """Fail the job for good: it is not retried, whatever attempts are left.

    >>> raise Discard("the account is closed")
    """

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason or "Discarded")


class _Pause(TaskOutcome):
    """Return the job and pause what it belongs to."""

    scope: Literal["queue", "task"]

    def __init__(
        self, for_seconds: float | timedelta | None = None, reason: str | None = None,
        *, until: datetime | None = None,
    ) -> None:  # fmt: skip
        if (
            (for_seconds is None) == (until is None)
            or isinstance(for_seconds, datetime)
            or not isinstance(until, datetime | None)
        ):
            raise InvalidArgument(
                f"for_seconds is {for_seconds!r} and until is {until!r}: pass seconds or a"
                " timedelta, or else until as an aware datetime"
            )
        self.when = _moment(for_seconds if until is None else until)  # type: ignore[arg-type]
        self.reason = reason
        super().__init__(reason or f"The {self.scope} is paused")


class PauseQueue(_Pause):
    """Return the job without using up its attempt, and pause its queue for so many seconds.

    >>> raise PauseQueue(for_seconds=60, reason="the API asks for a minute")

    No worker claims a job of the queue until then; what runs goes on. Pass ``until`` for a time
    instead. A pause that ends later stays. The job fails where it has no queue: see PauseTask.
    """

    scope = "queue"


class PauseTask(_Pause):
    """Return the job without using up its attempt, and pause its task, as PauseQueue does a queue.

    >>> raise PauseTask(timedelta(minutes=5))
    """

    scope = "task"


def _moment(delay: float | timedelta | datetime) -> timedelta | datetime:
    """Return a time, or a timedelta from now; raise InvalidArgument for what is neither."""
    if isinstance(delay, datetime):
        check_run_at(delay)
        return delay
    if isinstance(delay, timedelta):
        return delay
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not math.isfinite(delay):
        raise InvalidArgument(f"delay is {delay!r}: pass seconds, a timedelta or an aware datetime")
    return timedelta(seconds=delay)
