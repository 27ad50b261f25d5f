"""Add the jobs of the schedules that the database keeps, when they are due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from graphile_worker.log import logger
from graphile_worker.worker.database.backoff import happens
from graphile_worker.worker.database.protocol import Protocol
from graphile_worker.worker.events import Event, Events

#: Seconds between two checks at most: schedules may change, and clocks may jump.
LONGEST_SLEEP = 60.0
#: Seconds between two checks where notifications come: anybody can send those.
CHECK_PAUSE = 0.2


class Schedules:
    """Asks the database to add what is due, and sleeps until the next run or a notification.

    Every worker does so, and each run is added once: the database sees to that. ``worker_id`` is
    asked for the id that events carry.
    """

    def __init__(self, protocol: Protocol, events: Events, *, worker_id: Callable[[], str]) -> None:
        self._protocol, self._events, self._worker_id = protocol, events, worker_id
        self._soon = asyncio.Event()

    def check_soon(self) -> None:
        """Check soon: somebody says that something has changed."""
        self._soon.set()

    async def run(self) -> None:
        """Add what is due, until cancelled. Raise what the database raises."""
        while True:
            self._soon.clear()
            runs, seconds = await self._protocol.run_schedules()
            for run in runs:
                if run["job_id"] is None:
                    logger.info(
                        "schedule %s: the run of %s is left out, since the last one has not ended",
                        run["name"], run["at"],
                    )  # fmt: skip
                    continue
                at = datetime.fromisoformat(run["at"])
                data = {"identifier": run["name"], "at": at, "backfilled": run["backfilled"]}
                self._events.emit(Event("cron:fired", self._worker_id(), data=data))
            await asyncio.sleep(CHECK_PAUSE)
            longest = LONGEST_SLEEP if seconds is None else min(seconds, LONGEST_SLEEP)
            await happens(self._soon, max(longest - CHECK_PAUSE, 0.0))
