"""Clocks that tests set."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class OverError(Exception):
    """The time of a simulation is over."""


class Clock:
    """A clock that goes on when somebody sleeps; ``jumps`` say when it is set, and how far."""

    def __init__(self, start: str, end: str, **jumps: timedelta) -> None:
        self.now = utc(start)
        self.end = utc(end)
        self.jumps = [(utc(at), by) for at, by in jumps.items()]
        self.sleeps: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += timedelta(seconds=seconds)
        if self.jumps and self.now >= self.jumps[0][0]:
            self.now += self.jumps.pop(0)[1]
        if self.now > self.end and not self.jumps:
            raise OverError
        await asyncio.sleep(0)


DAY = "2026-01-01 "
