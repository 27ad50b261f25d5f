"""When a worker polls that was notified together with others."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections.abc import Callable
from hashlib import sha256
from typing import Any

#: So many workers poll at once. More of them would only find the job claimed, and keep the one that
#: claims it from the processor.
AT_ONCE = 3
#: Seconds on average between the polls of two workers, and for which all wait for the one that has
#: claimed last.
STEP, LAST_CLAIMER = 0.002, 0.003


class Waking:
    """Spreads the polls of idle workers, until one has claimed all that they were notified of.

    The worker that claims the job tells the others on the channel jobs:claimed, in the same
    transaction, which notification it had heard last: all hear them in the same order. Those that
    have heard no later one, and run the same tasks, do not poll. If none tells so, all have polled
    after a few milliseconds for each of them. Anybody can send notifications: a false one delays a
    job until a heartbeat of any worker finds it.

    The worker that claimed last and runs nothing polls at once. ``fellows`` is asked how many idle
    workers run the same tasks, ``load`` for the share of its places in which this one runs jobs.
    """

    def __init__(
        self, names: list[str], *, wake: Callable[[], None], load: Callable[[], float],
        fellows: Callable[[], int], has_forbidden_flags: bool,
    ) -> None:  # fmt: skip
        self._wake, self._load, self._fellows = wake, load, fellows
        self._tasks = sha256("\n".join(names).encode()).hexdigest()[:16]
        # One that leaves some jobs of its tasks alone is not like the others.
        self._is_alike = not has_forbidden_flags
        self._me = secrets.token_hex(6)
        #: The last notification, and the last one of which the others were told.
        self._heard: str | None = None
        self._told: str | None = None
        self._was_last = False
        self._timer: asyncio.TimerHandle | None = None

    def notified(self, payload: str) -> None:
        """Poll now or soon: jobs were added."""
        # Of two that are equal none could say which one was the last.
        delay = self._delay(payload) if payload != self._heard else 0.0
        self._heard = payload
        if delay == 0.0:
            self.cancel()
            self._wake()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(delay, self._fire)

    def _delay(self, payload: str) -> float:
        members = _members(payload)
        if not self._is_spread() or members.get("count") != 1 or "r" not in members:
            return 0.0
        load = self._load()
        if self._was_last and load == 0.0:
            return 0.0
        return LAST_CLAIMER + random.random() * self._fellows() * STEP * (1.0 + load)

    def _is_spread(self) -> bool:
        return self._is_alike and self._fellows() > AT_ONCE

    def _fire(self) -> None:
        self._timer = None
        self._wake()

    def to_tell(self) -> str | None:
        """Return what to tell the others if the poll that begins now claims all there is."""
        if not self._is_spread() or self._heard in (None, "", self._told):
            return None
        return json.dumps({"tasks": self._tasks, "heard": self._heard, "by": self._me})

    def told(self, payload: str) -> None:
        """Do not tell again what this tells."""
        self._told = json.loads(payload)["heard"]

    def claimed(self, payload: str) -> None:
        """Do not poll, if this says that another worker has claimed what this one would."""
        told = _members(payload)
        if told.get("tasks") == self._tasks:
            self._was_last = told.get("by") == self._me
            if told.get("heard") == self._heard:
                self.cancel()

    def cancel(self) -> None:
        """Forget that the worker was to poll."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _members(payload: str) -> dict[str, Any]:
    """Return the members of a JSON object; of anything else none."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
