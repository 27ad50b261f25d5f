"""How a worker stops: return what has not started, end what runs, write every result, in time."""

from __future__ import annotations

import asyncio
import signal
from typing import Any, Protocol

from graphile_worker.log import logger, shown
from graphile_worker.worker.completer import Completer
from graphile_worker.worker.executors.program import KILL_AFTER
from graphile_worker.worker.fetcher import Fetcher
from graphile_worker.worker.jobs import RunningJobs
from graphile_worker.worker.lease import Lease

#: Seconds that aborted tasks have to end: more than a program has between SIGTERM and SIGKILL.
ABORT_GRACE = KILL_AFTER + 2.0
#: Seconds after the grace, and after a second signal, in which the worker leaves, whatever the
#: server and the tasks do.
STOP_WITHIN, FORCE_WITHIN = 8.5, 1.5


class Stoppable(Protocol):
    """A worker of one database, or of several."""

    async def run(self) -> None:
        """Run until stopped."""

    def stop(self) -> None:
        """Stop; running jobs have the grace to end."""

    def stop_now(self) -> None:
        """Stop, and fail the jobs that are running."""

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        ...


class Stopping:
    """Ends a worker within ``grace`` seconds and a few more, or at once when it is forced to."""

    def __init__(
        self, fetcher: Fetcher, jobs: RunningJobs, completer: Completer, lease: Lease, grace: float
    ) -> None:
        self._fetcher, self._jobs, self._completer, self._lease = fetcher, jobs, completer, lease
        self._grace = grace
        self.asked, self.forced = asyncio.Event(), asyncio.Event()

    async def unless_asked(self, starting: asyncio.Task[None]) -> bool:
        """Wait for the start; return False if the worker is asked to stop in the meantime."""
        try:
            await _first(None, self.asked, starting)
            if not starting.done():
                return False
            starting.result()
            return True
        finally:
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
                await self._end_lease()

    async def _end_lease(self) -> None:
        """End the id of a worker that did not start, if the database has it and can be reached."""
        try:
            await asyncio.wait_for(self._lease.stop(), FORCE_WITHIN)
        except Exception as error:
            logger.debug("the worker did not end its id: %s", shown(error))

    async def leave(self, fetching: asyncio.Task[None]) -> None:
        """Return what has not started, end what runs, write every result, and end the lease."""
        loop = asyncio.get_running_loop()
        grace_ends = loop.time() + self._grace
        await _first(self._grace, self.forced, fetching)
        # Not awaited yet: if the database is away, tasks have to end all the same.
        returning = loop.create_task(self._fetcher.return_jobs(), name="return jobs")
        try:
            ended = loop.create_task(self._jobs.ended(max(grace_ends - loop.time(), 0.0)))
            await _first(None, self.forced, ended)
            ended.cancel()
            self._jobs.cancel("force" if self.forced.is_set() else "shutdown")
            await self._jobs.ended(ABORT_GRACE)
            await returning
        finally:
            returning.cancel()
        await self._completer.flushed()
        await self._lease.stop()

    async def in_time(self, leaving: asyncio.Task[None]) -> str | None:
        """Wait for ``leave`` as long as a stop may take.

        Return None if it is done, else what was not written.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._grace + STOP_WITHIN
        await _first(self._grace + STOP_WITHIN, self.forced, leaving)
        if not leaving.done() and self.forced.is_set():
            await asyncio.wait({leaving}, timeout=min(FORCE_WITHIN, until - loop.time()))
        if leaving.done():
            leaving.result()
            return None
        return (
            "the worker leaves before the database has heard of everything:"
            f" {self._completer.pending} results were not written, and {self._lease.held} jobs may"
            " still be locked by it; other workers run those when it has been silent for long"
            " enough (30 seconds, unless set_recovery says otherwise)"
        )


async def _first(seconds: float | None, event: asyncio.Event, *tasks: asyncio.Task[Any]) -> None:
    """Wait until the event is set, one of the tasks is done, or the seconds are over."""
    waiting = asyncio.get_running_loop().create_task(event.wait())
    try:
        await asyncio.wait({waiting, *tasks}, timeout=seconds, return_when="FIRST_COMPLETED")
    finally:
        waiting.cancel()


async def serve(worker: Stoppable, signals: bool) -> None:
    """Run the worker, stopped by signals or by being cancelled."""
    loop = asyncio.get_running_loop()
    if signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _signalled, worker)
    running = asyncio.ensure_future(worker.run())
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        if not running.done():
            worker.stop()
            await running
        raise
    finally:
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def _signalled(worker: Stoppable) -> None:
    """The first signal stops, the second one forces."""
    if worker.is_stopping:
        worker.stop_now()
    else:
        worker.stop()
