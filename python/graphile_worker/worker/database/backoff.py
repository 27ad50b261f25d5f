"""Wait: for an event, but not for ever; and between attempts, which are not all worth a line."""

from __future__ import annotations

import asyncio
import logging
import random

from graphile_worker.log import logger, shown


async def happens(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for the event, at most so many seconds; return whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


class Backoff:
    """Seconds to wait between attempts: growing, capped, and not the same for everybody."""

    def __init__(self, first: float = 0.05, cap: float = 5.0) -> None:
        self._first, self._cap = first, cap
        self._next = first
        #: How long to wait after the last failure.
        self.wait = 0.0
        #: How many attempts in a row have failed.
        self.failures = 0

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._next, self.failures = self._first, 0

    def failed(self, what: str, error: BaseException) -> float:
        """Take note of a failure, tell of it, and return how long to wait.

        The first is logged, and then at most one a second or so: an outage is no flood.
        """
        self.failures += 1
        self.wait = wait = self._next * random.uniform(0.5, 1.0)
        self._next = min(self._next * 2, self._cap)
        level = logging.WARNING if self.failures == 1 or wait > 1 else logging.DEBUG
        said = (shown(error).strip().splitlines() or [""])[0]
        logger.log(level, "%s, trying again (%d): %s", what, self.failures, said)
        return wait
