"""Several worker processes that one supervises, and one whose code may change."""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import multiprocessing
import multiprocessing.connection
import signal
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from graphile_worker.cli import command
from graphile_worker.cli.nodes import is_cluster
from graphile_worker.errors import GraphileWorkerError, InvalidArgument, TaskCrashed
from graphile_worker.gw.run.serve import (
    ENDED_WITHIN,
    FORCE,
    FORCED_WITHIN,
    STOP,
    run_worker,
)
from graphile_worker.gw.run.settings import configure_logging, settings
from graphile_worker.worker.database.backoff import Backoff
from graphile_worker.worker.database.failures import is_hopeless
from graphile_worker.worker.database.protocol import Protocol
from graphile_worker.worker.executors.process import ending
from graphile_worker.worker.options import WorkerOptions

logger = logging.getLogger("graphile_worker")

#: The exit code of what no second try heals.
_HOPELESS = 1
#: The exit code of a process that is started again: whatever else ended it may pass.
_AGAIN = 75
#: A process that ran for so many seconds may be started again at once.
_STEADY = 60.0
#: Seconds between two checks whether a signal came.
_CHECK_EVERY = 0.5
_SPAWN = multiprocessing.get_context("spawn")


def run_processes(options: argparse.Namespace, processes: int) -> int:
    """Run workers in processes until they are told to stop; return the exit code."""
    last = options.metrics_port and options.metrics_port + processes - 1
    if last and last > 65535:
        raise InvalidArgument(
            f"metrics port {options.metrics_port} leaves no port for each of {processes} processes:"
            f" use at most {65536 - processes}"
        )
    if options.reload and options.once:
        raise InvalidArgument("--once and --reload exclude each other")
    asyncio.run(_check(options))
    return _Fleet(options, processes).run()


async def _check(options: argparse.Namespace) -> None:
    """Raise an error once that would end each of the processes of one database."""
    if is_cluster(options):
        return
    protocol = Protocol(
        settings(options)["dsn"], schema=options.schema, trusted=options.trust_owner or ()
    )
    try:
        await protocol.check()
    finally:
        await protocol.close()


def _process(options: argparse.Namespace, number: int, orders: Connection) -> None:
    """Be one of the processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logging(options)

    def body() -> int:
        try:
            run_worker(options, number, orders)
        except (GraphileWorkerError, ValueError):  # what is wrong stays wrong
            raise
        except Exception as error:
            if is_hopeless(error):
                raise
            logger.error("the worker could not go on: %s", error, exc_info=options.verbose)
            return _AGAIN
        return 0

    raise SystemExit(command.guarded(body, options))


class _Member:
    """A process, and how to tell it to stop."""

    def __init__(self, options: argparse.Namespace, number: int) -> None:
        self.number = number
        self.started = time.monotonic()
        theirs, self.orders = _SPAWN.Pipe(duplex=False)
        self.process = _SPAWN.Process(target=_process, args=(options, number, theirs))
        self.process.start()
        theirs.close()

    def tell(self, order: bytes) -> None:
        with suppress(OSError):  # it is gone
            self.orders.send_bytes(order)

    def kill(self) -> None:
        logger.critical("process %d does not stop, and is killed", self.process.pid)
        self.process.kill()


class _Fleet:
    """Starts the processes, starts those again that die, and passes signals on."""

    def __init__(self, options: argparse.Namespace, count: int) -> None:
        self._options = options
        self._grace = WorkerOptions(**settings(options)).grace
        self._numbers = range(count)
        self._members: dict[Any, _Member] = {}
        #: When to start which process again.
        self._due: dict[int, float] = {}
        self._backoff = {number: Backoff(first=0.5, cap=30.0) for number in self._numbers}
        self._stopping = False
        #: With --reload: which files changed.
        self._changes: Connection | None = None
        #: Whether all stop to start again, with what has changed.
        self._restarting = False
        #: When what is still running is killed.
        self._kill_at = math.inf
        self._code = 0

    def run(self) -> int:
        """Return when all have ended: 0, or 1 where one met what no second try heals."""
        before = {
            number: signal.signal(number, self._signalled)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            with self._watching() as self._changes:
                for number in self._numbers:
                    self._start(number)
                while self._members or self._due or (self._changes and not self._stopping):
                    self._wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._code

    def _watching(self) -> AbstractContextManager[Connection | None]:
        if not self._options.reload:
            return nullcontext()
        from graphile_worker.gw.run.reload import watching

        return watching(self._options)

    def _start(self, number: int) -> None:
        member = _Member(self._options, number)
        self._members[member.process.sentinel] = member
        if self._stopping:  # by a signal that came in the meantime
            member.tell(STOP)

    def _wait(self) -> None:
        now = time.monotonic()
        soonest = min([*self._due.values(), self._kill_at])
        timeout = None if soonest == math.inf else max(soonest - now, 0.0)
        watched = [self._changes] if self._changes else []
        if watched and timeout is None:
            timeout = _CHECK_EVERY  # a signal interrupts no wait
        for ready in multiprocessing.connection.wait([*self._members, *watched], timeout):
            if isinstance(ready, Connection):
                self._changed(ready.recv())
            else:
                self._ended(self._members.pop(ready))
        if time.monotonic() >= self._kill_at:
            self._code, self._kill_at = 0 if self._restarting else 1, math.inf
            for member in self._members.values():
                member.kill()
        if self._stopping:
            self._due.clear()
        now = time.monotonic()
        for number in [number for number, at in self._due.items() if at <= now]:
            del self._due[number]
            self._start(number)

    def _changed(self, files: list[str]) -> None:
        """Start again with what has changed: at once, or when the running jobs have ended."""
        if self._stopping or self._restarting:
            return
        logger.info("%s changed: starting again", ", ".join(files))
        self._restarting = True
        self._kill_at = time.monotonic() + self._grace + ENDED_WITHIN + 0.3
        for member in list(self._members.values()):
            member.tell(STOP)
        self._restarted()

    def _restarted(self) -> None:
        if not self._members:
            self._restarting, self._kill_at = False, math.inf
            self._due = dict.fromkeys(self._numbers, 0.0)

    def _ended(self, member: _Member) -> None:
        process = member.process
        process.join()
        member.orders.close()
        if self._restarting and not self._stopping:
            self._restarted()
        elif self._changes and process.exitcode == _HOPELESS and not self._stopping:
            logger.error("the worker ended; it starts again when a file changes")
        elif process.exitcode == _HOPELESS:
            self._code = 1
            if not self._stopping:
                self._tell(STOP)
        elif not self._stopping and not (self._options.once and process.exitcode == 0):
            now, backoff = time.monotonic(), self._backoff[member.number]
            if now - member.started > _STEADY:
                backoff.reset()
            error = TaskCrashed(f"process {process.pid} {ending(process.exitcode)}")
            self._due[member.number] = now + backoff.failed("a worker is gone", error)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        """Stop, and the second time leave."""
        self._tell(FORCE if self._stopping else STOP)

    def _tell(self, order: bytes) -> None:
        self._stopping = True
        # A moment later than each would end itself.
        seconds = FORCED_WITHIN if order == FORCE else self._grace + ENDED_WITHIN
        self._kill_at = min(self._kill_at, time.monotonic() + seconds + 0.3)
        for member in list(self._members.values()):
            member.tell(order)
