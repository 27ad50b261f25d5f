"""Run functions in threads that no one has to wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from graphile_worker.errors import TaskCrashed
from graphile_worker.log import represented

_Work = tuple[Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Threads:
    """Daemon threads: one for each function that runs, used again, and started when none is idle.

    A thread cannot be ended from outside: one whose future was cancelled goes on beside those of
    new functions, neither in their way nor in that of the interpreter's exit. To be used from one
    event loop.
    """

    def __init__(self, most_idle: int = 32) -> None:
        self._most_idle = most_idle
        self._idle: list[SimpleQueue[_Work | None]] = []
        self._running: set[asyncio.Future[Any]] = set()

    @property
    def abandoned(self) -> int:
        """How many functions still run although their future was cancelled."""
        return sum(future.cancelled() for future in self._running)

    def start(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Call the function in a thread; return the future of its result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._running.add(future)
        if self._idle:
            inbox = self._idle.pop()
        else:
            inbox = SimpleQueue()
            threading.Thread(
                target=self._serve, args=(inbox,), name="graphile_worker", daemon=True
            ).start()
        inbox.put((function, loop, future))
        return future

    def close(self) -> None:
        """End the idle threads; the others end when their function does."""
        self._most_idle = 0
        for inbox in self._idle:
            inbox.put(None)
        self._idle.clear()

    def _serve(self, inbox: SimpleQueue[_Work | None]) -> None:
        while (work := inbox.get()) is not None:
            function, loop, future = work
            result, raised = None, None
            try:
                result = function()
            except BaseException as error:
                raised = error
            try:
                loop.call_soon_threadsafe(self._ended, inbox, future, result, raised)
            except RuntimeError:  # the loop is closed: no one waits any more
                return
            del work, function, future, result, raised

    def _ended(
        self, inbox: SimpleQueue[_Work | None], future: asyncio.Future[Any], result: Any,
        raised: BaseException | None,
    ) -> None:  # fmt: skip
        self._running.discard(future)
        if len(self._idle) < self._most_idle:
            self._idle.append(inbox)
        else:
            inbox.put(None)
        if future.done():
            return
        # Not isinstance, which asks the exception, too.
        kind = type(raised)
        if raised is None:
            future.set_result(result)
        elif issubclass(kind, Exception) and not issubclass(kind, StopIteration):
            future.set_exception(raised)
        else:  # what a future cannot hold, or would end the loop
            crashed = TaskCrashed(f"the task raised {represented(raised)}")
            crashed.__cause__ = raised
            future.set_exception(crashed)
