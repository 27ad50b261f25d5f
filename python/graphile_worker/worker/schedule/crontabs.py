"""Add recurring jobs when they are due, by the database's clock."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Protocol

from graphile_worker.crontab import MINUTE, CronItem, check_identifiers
from graphile_worker.errors import InvalidArgument
from graphile_worker.log import logger
from graphile_worker.worker.events import Event, Events

#: How late a tick is still added where the item asks for no fill.
GRACE = timedelta(minutes=5)
#: Seconds between two looks at the clock, at least.
_PAUSE = 0.05


class SchedulerDatabase(Protocol):
    """What the scheduler asks of the database."""

    async def register_crontabs(
        self, identifiers: list[str]
    ) -> list[tuple[str, datetime, datetime | None]]:
        """Register items; return identifier, known_since and last_execution of each."""
        ...

    async def add_cron_jobs(self, at: datetime, jobs: list[dict[str, Any]]) -> list[str]:
        """Add the items not yet added for this time or a later one; return their identifiers."""
        ...

    async def now(self) -> datetime:
        """Return the database's current time, aware."""
        ...


class Scheduler:
    """Adds the jobs of a crontab, each tick once however many schedulers there are.

    Time is the database's, asked at least once a minute, so that a clock of the host that is wrong
    or jumps does no harm; what was missed while the host slept or the database was away is added
    late. ``worker_id`` is asked for the id that events carry. ``sleep`` is for tests.
    """

    def __init__(
        self,
        items: Sequence[CronItem],
        protocol: SchedulerDatabase,
        events: Events,
        *,
        worker_id: Callable[[], str] = str,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        check_identifiers(items)
        self._items = list(items)
        self._protocol = protocol
        self._events = events
        self._worker_id = worker_id
        self._sleep = sleep

    async def run(self) -> None:
        """Add what was missed within the fill of each item, then what is due; until cancelled.

        Raise what the database raises, but for what it refuses: that is logged, and left out.
        """
        if not self._items:
            return
        known = await self._protocol.register_crontabs([item.identifier for item in self._items])
        now = await self._protocol.now()
        done = _minute(now)
        if await self._add(self._missed(known, now), now, late=True):
            now = await self._protocol.now()
        while True:
            # A host that slept, or a clock that was set, is noticed within a minute.
            wait = min((done + MINUTE - now).total_seconds(), 60.0)
            await self._sleep(max(wait, _PAUSE))
            now = await self._protocol.now()
            if now < done:
                # The clock was put back: the database refuses what it has added already.
                done = _minute(now)
            elif now >= done + MINUTE:
                since = [self._since(item, done, now) for item in self._items]
                done = _minute(now)
                if await self._add(since, now):
                    now = await self._protocol.now()

    def _missed(
        self, known: list[tuple[str, datetime, datetime | None]], now: datetime
    ) -> list[datetime]:
        """Return after which time the ticks of each item are missing."""
        last = {identifier: at or since for identifier, since, at in known}
        for identifier, at in last.items():
            if at > now + GRACE:
                logger.warning(
                    "crontab %s was added for %s, which is yet to come: it will not be until then",
                    identifier,
                    at,
                )
        return [
            max(last[item.identifier], now - item.fill) if item.fill else now
            for item in self._items
        ]

    def _since(self, item: CronItem, done: datetime, now: datetime) -> datetime:
        """Return the time after which ticks are added; warn about those that are too old."""
        since = max(done, now - max(item.fill, GRACE))
        lost = next(item.ticks(done, since), None) if since > done else None
        if lost is not None:
            logger.warning(
                "crontab %s: ticks from %s until %s were missed, and its fill is %s",
                item.identifier,
                lost,
                since,
                item.fill,
            )
        return since

    async def _add(self, since: list[datetime], now: datetime, *, late: bool = False) -> int:
        """Add the ticks of each item after a time, in order of time; return how many there were."""
        count = 0
        ticks = heapq.merge(*(self._ticks(n, after, now) for n, after in enumerate(since)))
        for at, group in groupby(ticks, key=lambda tick: tick[0]):
            await self._fire(at, [self._items[n] for _, n in group], late or at < _minute(now))
            count += 1
        return count

    def _ticks(self, n: int, after: datetime, until: datetime) -> Iterator[tuple[datetime, int]]:
        return ((at, n) for at in self._items[n].ticks(after, until))

    async def _fire(self, at: datetime, items: list[CronItem], late: bool) -> None:
        # In one order whatever the crontab's, so that schedulers cannot deadlock.
        jobs = [job(item, at, late) for item in sorted(items, key=lambda item: item.identifier)]
        try:
            fired = await self._protocol.add_cron_jobs(at, jobs)
        except Exception as error:
            if not _is_refusal(error):
                raise
            if len(items) > 1:  # All or nothing, and the others are right.
                for item in items:
                    await self._fire(at, [item], late)
            else:
                logger.error("crontab %s was refused: %s", items[0].identifier, error)
            return
        for identifier in fired:
            data = {"identifier": identifier, "at": at, "backfilled": late}
            self._events.emit(Event("cron:fired", self._worker_id(), data=data))


def job(item: CronItem, at: datetime, backfilled: bool) -> dict[str, Any]:
    """Return the job of an item for a tick, as ``add_cron_jobs`` takes it."""
    ts = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    options = {
        name: value
        for name in (
            "queue_name", "max_attempts", "priority", "job_key", "job_key_mode", "flags",
        )
        if (value := getattr(item, name)) is not None
    }  # fmt: skip
    payload = {**(item.payload or {}), "_cron": {"ts": ts, "backfilled": backfilled}}
    return {"identifier": item.identifier, "task": item.task, "payload": payload, **options}


def _minute(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(second=0, microsecond=0)


def _is_refusal(error: Exception) -> bool:
    code = getattr(error, "sqlstate", None) or ""
    return isinstance(error, InvalidArgument) or code.startswith("GWB")
