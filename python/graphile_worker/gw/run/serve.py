"""gw run at work: a worker in this process, or in several that this one supervises."""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from graphile_worker.cli import command
from graphile_worker.errors import (
    GraphileWorkerError,
    InvalidArgument,
    InvalidCrontab,
    TaskCrashed,
)
from graphile_worker.gw.run.settings import configure_logging, settings
from graphile_worker.worker.database.backoff import Backoff
from graphile_worker.worker.database.failures import is_hopeless
from graphile_worker.worker.database.protocol import Protocol
from graphile_worker.worker.executors.process import ending
from graphile_worker.worker.metrics import Metrics, MetricsServer
from graphile_worker.worker.options import WorkerOptions
from graphile_worker.worker.task_loading import load_source
from graphile_worker.worker.worker import Worker, serve

logger = logging.getLogger("graphile_worker")

#: What the main process says to the others. When it is gone, they stop as well.
_STOP, _FORCE = b"stop", b"force"
#: The exit code of what no second try heals.
_HOPELESS = 1
#: The exit code of a process that is started again: whatever else ended it may pass.
_AGAIN = 75
#: A process that ran for so many seconds may be started again at once.
_STEADY = 60.0
#: Seconds after the grace, and after a second signal, in which a worker leaves by itself; after
#: them its process is ended, whatever its tasks do.
_ENDED_WITHIN, _FORCED_WITHIN = 9.5, 2.5
_SPAWN = multiprocessing.get_context("spawn")


def run_command(options: argparse.Namespace) -> int:
    """Run the jobs of ``gw run``; return its exit code."""
    processes = options.processes or 1
    if processes == 1:
        _run(options, 0, None)
        return 0
    last = options.metrics_port and options.metrics_port + processes - 1
    if last and last > 65535:
        raise InvalidArgument(
            f"metrics port {options.metrics_port} leaves no port for each of {processes} processes:"
            f" use at most {65536 - processes}"
        )
    asyncio.run(_check(options))
    return _Fleet(options, processes).run()


async def _check(options: argparse.Namespace) -> None:
    """Raise an error once that would end each of the processes."""
    protocol = Protocol(
        settings(options)["dsn"], schema=options.schema, trusted=options.trust_owner or ()
    )
    try:
        await protocol.check()
    finally:
        await protocol.close()


# --- one worker


def _run(options: argparse.Namespace, number: int, orders: Connection | None) -> None:
    """Run a worker until it is told to stop: by signals, or by the main process."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if options.uvloop:
        try:
            import uvloop
        except ImportError as error:
            raise GraphileWorkerError(
                "uvloop is not installed: run `pip install 'graphile-worker[uvloop]'`, or leave"
                " --uvloop out"
            ) from error
        factory = uvloop.new_event_loop
    worker = Worker(
        [load_source(text) for text in options.tasks or ["tasks"]],
        once=options.once, crontab=_crontab(options), **settings(options),
    )  # fmt: skip
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(worker, options, number, orders))


def _crontab(options: argparse.Namespace) -> str:
    path = Path(options.crontab or "crontab")
    if options.crontab is None and not path.is_file():
        return ""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidCrontab(
            f"the crontab {str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    logger.info("recurring jobs are read from %s", path)
    return text


async def _serve(
    worker: Worker, options: argparse.Namespace, number: int, orders: Connection | None
) -> None:
    server = None
    if options.metrics_port:
        Metrics(worker.events)
        server = MetricsServer(worker.health)
        host, port = await server.start(options.metrics_host, options.metrics_port + number)
        logger.info("metrics are at http://%s:%d/metrics", host, port)
    watchdog = _Watchdog(worker)
    try:
        if orders is not None:
            _obey(worker, orders, watchdog)
        else:
            watchdog.signals()
        await serve(worker, signals=False)
    finally:
        watchdog.worker_ended = True
        if server is not None:
            await server.close()


class _Watchdog:
    """Tells the worker to stop, and ends the process where that does not help in time.

    A task that blocks the event loop, or goes on although it is cancelled, would keep it for ever.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._orders = 0
        self.worker_ended = False

    def signals(self) -> None:
        """Let the first SIGTERM or SIGINT stop the worker, and the second one force it."""
        # Not by the loop, which may stand still.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self.order(_FORCE if self._orders else _STOP)

    def order(self, order: bytes) -> None:
        """Stop the worker, or force it to."""
        self._orders += 1
        forced = order == _FORCE
        seconds = _FORCED_WITHIN if forced else self._worker.options.grace + _ENDED_WITHIN
        if seconds < threading.TIMEOUT_MAX:
            timer = threading.Timer(seconds, self._leave)
            timer.daemon = True
            timer.start()
        with suppress(RuntimeError):  # the loop is closed: it has stopped
            stop = self._worker.stop_now if forced else self._worker.stop
            self._loop.call_soon_threadsafe(stop)

    def _leave(self) -> None:
        if not self.worker_ended:
            what = "the worker does not stop, and its process is ended: a task blocks it. What it"
            what += " holds is run elsewhere when it has been silent for long enough"
        else:
            what = "a task ignored its cancellation; the process is killed"
        logger.critical("%s", what)
        with suppress(Exception):
            logging.shutdown()
        os._exit(1)


def _obey(worker: Worker, orders: Connection, watchdog: _Watchdog) -> None:
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            order = orders.recv_bytes()
        except (EOFError, OSError):
            loop.remove_reader(orders.fileno())
            logger.error("the main process is gone: stopping")
            order = _STOP
        watchdog.order(order)

    loop.add_reader(orders.fileno(), read)
    # A terminal and a service manager signal all processes, and the main one passes it on: only
    # that one counts how many times.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, worker.stop)


# --- several


def _process(options: argparse.Namespace, number: int, orders: Connection) -> None:
    """Be one of the processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logging(options)

    def body() -> int:
        try:
            _run(options, number, orders)
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
            for number in self._numbers:
                self._start(number)
            while self._members or self._due:
                self._wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._code

    def _start(self, number: int) -> None:
        member = _Member(self._options, number)
        self._members[member.process.sentinel] = member
        if self._stopping:  # by a signal that came in the meantime
            member.tell(_STOP)

    def _wait(self) -> None:
        now = time.monotonic()
        soonest = min([*self._due.values(), self._kill_at])
        timeout = None if soonest == math.inf else max(soonest - now, 0.0)
        for sentinel in multiprocessing.connection.wait(list(self._members), timeout):
            self._ended(self._members.pop(sentinel))
        if time.monotonic() >= self._kill_at:
            self._code, self._kill_at = 1, math.inf
            for member in self._members.values():
                member.kill()
        if self._stopping:
            self._due.clear()
        now = time.monotonic()
        for number in [number for number, at in self._due.items() if at <= now]:
            del self._due[number]
            self._start(number)

    def _ended(self, member: _Member) -> None:
        process = member.process
        process.join()
        member.orders.close()
        if process.exitcode == _HOPELESS:
            self._code = 1
            if not self._stopping:
                self._tell(_STOP)
        elif not self._stopping and not (self._options.once and process.exitcode == 0):
            now, backoff = time.monotonic(), self._backoff[member.number]
            if now - member.started > _STEADY:
                backoff.reset()
            error = TaskCrashed(f"process {process.pid} {ending(process.exitcode)}")
            self._due[member.number] = now + backoff.failed("a worker is gone", error)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        """Stop, and the second time leave."""
        self._tell(_FORCE if self._stopping else _STOP)

    def _tell(self, order: bytes) -> None:
        self._stopping = True
        # A moment later than each would end itself.
        seconds = _FORCED_WITHIN if order == _FORCE else self._grace + _ENDED_WITHIN
        self._kill_at = min(self._kill_at, time.monotonic() + seconds + 0.3)
        for member in list(self._members.values()):
            member.tell(order)
