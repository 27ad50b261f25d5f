"""What each Python worker's task does: print when it starts, and wait if it is asked to.

The payload is ``{"n": number, "wait": seconds}``. Positive numbers are printed each time, 0 (a job
of a drain) and -1 (warming up) the first time only.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

_seen: set[int] = set()


def note(number: int) -> None:
    """Print the number and the time, in nanoseconds."""
    if number > 0 or number not in _seen:
        print(number, time.time_ns(), flush=True)
        _seen.add(number)


async def work(payload: dict[str, Any]) -> None:
    """Do a job."""
    note(payload["n"])
    if payload["wait"]:
        await asyncio.sleep(payload["wait"])
