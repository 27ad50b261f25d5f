"""gw run at work: a worker in this process."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from graphile_worker.cli.nodes import is_cluster, members_of
from graphile_worker.errors import GraphileWorkerError, InvalidCrontab
from graphile_worker.gw.run.settings import settings
from graphile_worker.worker.cluster.worker import AnyWorker, ClusterWorker
from graphile_worker.worker.metrics import Metrics, MetricsServer
from graphile_worker.worker.stopping import serve
from graphile_worker.worker.task_loading import load_source
from graphile_worker.worker.worker import Worker

logger = logging.getLogger("graphile_worker")

#: What the main process says to the others. When it is gone, they stop as well.
STOP, FORCE = b"stop", b"force"
#: Seconds after the grace, and after a second signal, in which a worker leaves by itself; after
#: them its process is ended, whatever its tasks do.
ENDED_WITHIN, FORCED_WITHIN = 9.5, 2.5


def run_worker(
    options: argparse.Namespace, number: int = 0, orders: Connection | None = None
) -> None:
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
    worker = _worker(options)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(worker, options, number, orders))


def _worker(options: argparse.Namespace) -> AnyWorker:
    """Return a worker of one database, or of several."""
    tasks = [load_source(text) for text in options.tasks or ["tasks"]]
    given = {"once": options.once, "crontab": _crontab(options), **settings(options)}
    if not is_cluster(options):
        return Worker(tasks, **given)
    return ClusterWorker(tasks, members_of(options), **given)


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
    worker: AnyWorker,
    options: argparse.Namespace,
    number: int,
    orders: Connection | None,
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

    def __init__(self, worker: AnyWorker) -> None:
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
        self.order(FORCE if self._orders else STOP)

    def order(self, order: bytes) -> None:
        """Stop the worker, or force it to."""
        self._orders += 1
        forced = order == FORCE
        seconds = FORCED_WITHIN if forced else self._worker.options.grace + ENDED_WITHIN
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


def _obey(worker: AnyWorker, orders: Connection, watchdog: _Watchdog) -> None:
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            order = orders.recv_bytes()
        except (EOFError, OSError):
            loop.remove_reader(orders.fileno())
            logger.error("the main process is gone: stopping")
            order = STOP
        watchdog.order(order)

    loop.add_reader(orders.fileno(), read)
    # A terminal and a service manager signal all processes, and the main one passes it on: only
    # that one counts how many times.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, worker.stop)
