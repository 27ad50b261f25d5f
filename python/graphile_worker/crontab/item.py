"""A recurring job and the times at which it is due."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

from graphile_worker.job import JobKeyMode

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
#: No zone is farther from UTC, the length of a gap included.
_FARTHEST = timedelta(hours=26)


@dataclass(frozen=True, slots=True, kw_only=True)
class CronItem:
    """A task and when it is due; made by ``parse_crontab``, ``cron_item`` or ``Tasks.cron``.

    Where both the days of the month and those of the week are restricted, either is enough.
    """

    task: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    #: Sunday is 0.
    weekdays: frozenset[int]
    #: The name under which the database knows when the item was last added.
    identifier: str
    #: How far back missed ticks are added later.
    fill: timedelta = timedelta(0)
    max_attempts: int | None = None
    queue_name: str | None = None
    job_key: str | None = None
    job_key_mode: JobKeyMode | None = None
    priority: int | None = None
    flags: tuple[str, ...] | None = None
    payload: Mapping[str, Any] | None = None
    #: The zone of hours and days; None: UTC.
    tz: ZoneInfo | None = None

    def matches(self, at: datetime) -> bool:
        """Whether the item is due in the minute of this moment, which must be aware.

        In a zone, an item for every hour is due whenever a clock on the wall shows its minutes. Any
        other is due once for each local time: when a time is shown twice, the first time; when it
        is skipped, at the moment when the clock is put forward.
        """
        utc = at.astimezone(UTC).replace(second=0, microsecond=0)
        if self.tz is None:
            return self._matches_wall(utc)
        local = utc.astimezone(self.tz).replace(tzinfo=None)
        if self._every_hour:
            return self._matches_wall(local)
        if local.fold == 0 and self._matches_wall(local):
            return True
        before = (utc - MINUTE).astimezone(self.tz).replace(tzinfo=None)
        skipped = (local - before) // MINUTE
        return any(self._matches_wall(before + n * MINUTE) for n in range(1, skipped))

    def ticks(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Return the minutes when the item is due, in order: later than ``after``, up to ``until``.

        Both must be aware; the minutes are in UTC.
        """
        after, until = after.astimezone(UTC), until.astimezone(UTC)
        if until - after <= HOUR:
            minute = after.replace(second=0, microsecond=0) + MINUTE
            while minute <= until:
                if self.matches(minute):
                    yield minute
                minute += MINUTE
            return
        margin = timedelta(0) if self.tz is None else _FARTHEST
        day, last = (after - margin).date(), (until + margin).date()
        # Around a change of the clock, minutes of one local day may come before those of another.
        waiting: set[datetime] = set()
        while day <= last:
            if self._matches_day(day):
                waiting.update(self._minutes_of(day))
            day += DAY
            safe = datetime(day.year, day.month, day.day, tzinfo=UTC) - margin
            ready = sorted(at for at in waiting if at < safe or day > last)
            waiting.difference_update(ready)
            yield from (at for at in ready if after < at <= until)

    @property
    def _every_hour(self) -> bool:
        return len(self.hours) == 24

    def _matches_wall(self, wall: datetime) -> bool:
        return wall.minute in self.minutes and wall.hour in self.hours and self._matches_day(wall)

    def _matches_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        if len(self.days) < 31 and len(self.weekdays) < 7:
            return of_month or of_week
        return of_month and of_week

    def _minutes_of(self, day: date) -> Iterator[datetime]:
        """Return the minutes in UTC when the item is due for a local day, in no order."""
        midnight = datetime(day.year, day.month, day.day)
        walls = (
            midnight + timedelta(hours=hour, minutes=minute)
            for hour, minute in product(self.hours, self.minutes)
        )
        if self.tz is None:
            yield from (wall.replace(tzinfo=UTC) for wall in walls)
            return
        offsets = {
            wall.replace(tzinfo=self.tz, fold=fold).utcoffset()
            for wall in (midnight, midnight + DAY)
            for fold in (0, 1)
        }
        if len(offsets) == 1:
            offset = offsets.pop() or timedelta(0)
            yield from ((wall - offset).replace(tzinfo=UTC) for wall in walls)
            return
        for wall in walls:
            moments = [wall.replace(tzinfo=self.tz, fold=n).astimezone(UTC) for n in (0, 1)]
            shown = [at for at in moments if at.astimezone(self.tz).replace(tzinfo=None) == wall]
            if self._every_hour:
                yield from shown
            else:
                yield shown[0] if shown else self._end_of_gap(moments[1], moments[0])

    def _end_of_gap(self, before: datetime, after: datetime) -> datetime:
        """Return the first minute with the offset of ``after``, which ``before`` does not have."""
        offset = after.astimezone(self.tz).utcoffset()
        while after - before > MINUTE:
            middle = before + (after - before) // MINUTE // 2 * MINUTE
            if middle.astimezone(self.tz).utcoffset() == offset:
                after = middle
            else:
                before = middle
        return after
