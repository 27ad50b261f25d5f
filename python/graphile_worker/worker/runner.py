"""The worker: its whole life, and how it stops without losing any job."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphile_worker.crontab import check_identifiers
from graphile_worker.errors import SchemaTooNew
from graphile_worker.scripts import NODE_REVISION
from graphile_worker.worker.calling import Executors, RunnableTask
from graphile_worker.worker.cron import Cron
from graphile_worker.worker.events import Event
from graphile_worker.worker.listener import Listener
from graphile_worker.worker.loading import load_tasks
from graphile_worker.worker.options import WorkerOptions
from graphile_worker.worker.presence import Identity, Presence
from graphile_worker.worker.programs import KILL_AFTER
from graphile_worker.worker.protocol import Protocol
from graphile_worker.worker.running import Runs
from graphile_worker.worker.taking import Taker
from graphile_worker.worker.writing import Writer

logger = logging.getLogger("graphile_worker")

#: Seconds that aborted tasks have to end: more than a program has between SIGTERM and SIGKILL.
ABORT_GRACE = KILL_AFTER + 3.0


@dataclass(frozen=True, slots=True)
class Health:
    """What a worker can say of itself."""

    ok: bool
    #: Whether LISTEN holds; None: the worker only polls.
    listening: bool | None
    last_fetch_seconds_ago: float | None
    last_beat_seconds_ago: float | None
    draining: bool
    running: int
    prefetched: int
    problems: list[str]


class Worker:
    """Runs jobs until it is stopped, or until none is due with ``once``.

    >>> worker = Worker(tasks, dsn="dbname=app", concurrency=20)
    >>> await worker.run()

    ``tasks`` is a registry, a mapping of functions, or a list of several of them; the options are
    those of WorkerOptions. Nothing connects before ``run``.
    """

    def __init__(self, tasks: Any, *, once: bool = False, **settings: Any) -> None:
        self.options = options = WorkerOptions(**settings)
        self.events = options.events
        self._once = once
        self._executors = Executors(processes=options.executor_processes)
        self._tasks: Mapping[str, RunnableTask] = load_tasks(tasks, self._executors)
        names = sorted(self._tasks)
        self._failed: BaseException | None = None
        self._stop, self._force = asyncio.Event(), asyncio.Event()
        self._protocol = Protocol(
            options.dsn, schema=options.schema, prepare=options.prepare, on_error=self._pool_error
        )
        self._presence = Presence(
            self._protocol, self.events, names,
            on_lost=self._abandon, on_due=lambda seconds: self._taker.wake_in(seconds),
            on_look=lambda is_due: self._taker.looked(is_due),
        )  # fmt: skip
        self._writer = Writer(
            self._protocol, self.events, complete_delay=options.complete_delay,
            fail_delay=options.fail_delay, on_written=self._written,
        )  # fmt: skip
        self._runs = Runs(self._tasks, options, self._writer, on_end=lambda: self._taker.start())
        self._taker = Taker(
            self._protocol, self._presence, self._runs, self._writer, options, names, once=once
        )
        self._cron = self._scheduler()
        self._listener: Listener | None = None
        if options.listen and not once:
            self._listener = Listener(
                options.listen_dsn or options.dsn, self.events, worker_id=lambda: self.worker_id,
                on_jobs=self._taker.wake, on_migration=self._migrated,
            )  # fmt: skip

    def _scheduler(self) -> Cron | None:
        """Return what adds the recurring jobs of the tasks and the crontab, if there are any."""
        items = [item for task in self._tasks.values() for item in task.crontab]
        items += self.options.cron_items
        check_identifiers(items)
        for item in items:
            if item.task not in self._tasks:
                logger.warning(
                    "crontab %s adds jobs of task %s, which this worker does not run",
                    item.identifier, item.task,
                )  # fmt: skip
        if self._once or not items:
            return None
        return Cron(items, self._protocol, self.events, worker_id=lambda: self.worker_id)

    # --- asked from outside

    @property
    def worker_id(self) -> str:
        """The id under which jobs are taken now."""
        return self._presence.current.worker_id

    @property
    def _stopping(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        """Take no more jobs, give back those not started, and wait for the others for the grace."""
        if not self._stopping:
            logger.info("stopping: %d jobs are running", len(self._runs))
            self._stop.set()
            self._taker.stop()

    def stop_now(self) -> None:
        """Stop, and fail the jobs that are running."""
        self.stop()
        self._force.set()

    def health(self) -> Health:
        """Return whether the worker listens, fetches and lives in the database's eyes."""
        now, problems = time.monotonic(), []
        fetched = self._taker.last_fetch
        if fetched is not None:
            fetched = now - fetched
        listening = self._listener.listening if self._listener else None
        beat = self._presence.age
        if listening is False:
            problems.append("LISTEN is lost: new jobs wait for the next poll")
        full = len(self._runs) >= self.options.concurrency
        if (
            not self._stopping
            and not full
            and (fetched is None or fetched > 2 * self.options.poll_interval + 5)
        ):
            problems.append("no fetch has succeeded lately")
        if beat is None or beat > 25:
            problems.append("no heartbeat has reached the database lately")
        return Health(
            not problems, listening, fetched, beat, self._stopping, len(self._runs),
            len(self._taker), problems,
        )  # fmt: skip

    # --- the whole life

    async def run(self) -> None:
        """Run until stopped; raise what no time heals, such as missing rights or schema."""
        self._loop = asyncio.get_running_loop()
        try:
            await self._protocol.check()
            await self._presence.start()
            self._emit("worker:start")
            await self._work()
        finally:
            await self._close()
        if self._failed is not None:
            raise self._failed

    async def _work(self) -> None:
        background: set[asyncio.Task[Any]] = {
            asyncio.create_task(job.run(), name=type(job).__name__)
            for job in (self._writer, self._presence, self._listener)
            if job is not None
        }
        fetching: asyncio.Task[Any] = asyncio.create_task(self._taker.run(), name="fetch")
        # Ends at once when the worker is told to stop.
        passing: set[asyncio.Task[Any]] = set()
        if self._cron is not None:
            passing.add(asyncio.create_task(self._cron.run(), name="cron"))
        every = {*background, *passing, fetching}
        stopping: asyncio.Task[Any] = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait({*every, stopping}, return_when="FIRST_COMPLETED")
            for task in every:
                if task.done() and (error := task.exception()) is not None:
                    self._fail(error)
            self.stop()
            self._emit("worker:stop")
            for task in passing:
                task.cancel()
            await self._drain(fetching)
            await self._finished(background)
        finally:
            for task in (*every, stopping):
                task.cancel()
            await asyncio.gather(*every, stopping, return_exceptions=True)

    async def _drain(self, fetching: asyncio.Task[None]) -> None:
        """Give back what was not started, and end what runs: by itself, by abort, or by force."""
        forced: asyncio.Task[Any] = asyncio.create_task(self._force.wait())
        try:
            await asyncio.wait(
                {fetching, forced}, timeout=self.options.grace, return_when="FIRST_COMPLETED"
            )
            if self._failed is None:
                await self._taker.give_back()
            await self._runs.ended(self.options.grace, forced)
            self._runs.cancel("force" if self._force.is_set() else "shutdown")
            await self._runs.ended(ABORT_GRACE)
        finally:
            forced.cancel()

    async def _finished(self, background: set[asyncio.Task[Any]]) -> None:
        """Write the last results and end the ids, unless the database refuses."""
        if self._failed is not None and not isinstance(self._failed, SchemaTooNew):
            return
        last = asyncio.create_task(self._last_words())
        done, _ = await asyncio.wait({last, *background}, return_when="FIRST_COMPLETED")
        if last in done:
            last.result()
            return
        last.cancel()
        for task in done:
            if error := task.exception():
                self._fail(error)

    async def _last_words(self) -> None:
        await self._writer.flushed()
        await self._presence.stop()
        self._emit("worker:end")

    async def _close(self) -> None:
        self._taker.close()
        await self._executors.close()
        await self._runs.close()
        await self._protocol.close()

    def _fail(self, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if self._failed is None:
            logger.critical("the worker stops: %s", error)
            self._failed = error

    # --- what the parts tell

    def _abandon(self, identity: Identity) -> None:
        """Stop what runs under an id that is not the worker's any more."""
        self._runs.abandon(identity)
        identity.held.clear()

    def _written(self, queues: bool, again: float | None) -> None:
        """A flush is done: queues may be free, and failed jobs are due some time."""
        if queues or self._once:
            self._taker.wake()
        if again is not None:
            self._taker.wake_in(again)

    def _migrated(self, change: dict[str, Any]) -> None:
        revision = change.get("migrationNumber")
        if change.get("breaking") and isinstance(revision, int) and revision > NODE_REVISION:
            self._fail(
                SchemaTooNew(
                    f"the schema was migrated to revision {revision}, which breaks this worker:"
                    " run `pip install -U graphile-worker` and start it again"
                )
            )
            self.stop()

    def _pool_error(self, error: BaseException) -> None:
        if self.events.wanted("pool:error"):
            self._emit("pool:error", error=error)

    def _emit(self, name: str, **more: Any) -> None:
        self.events.emit(Event(name, self.worker_id, **more))


async def run(tasks: Any, *, signals: bool = True, **options: Any) -> None:
    """Run jobs until SIGTERM or SIGINT, or until cancelled.

    >>> asyncio.run(run(tasks, dsn="dbname=app"))

    The first signal stops: jobs not started are given back, running ones have ``grace`` seconds.
    The second one fails those that run, and leaves. ``signals=False`` leaves signals alone, as
    outside the main thread. Raise a SchemaError where the schema is not what this package needs,
    AccessDenied without the level work, psycopg.OperationalError where there is no server.
    """
    await serve(Worker(tasks, **options), signals)


async def run_once(tasks: Any, *, signals: bool = False, **options: Any) -> None:
    """Run the jobs that are due, and those that they bring, and return when none is left.

    >>> await run_once(tasks, dsn="dbname=app")

    Recurring jobs are not added. Raise what ``run`` raises.
    """
    await serve(Worker(tasks, once=True, **options), signals)


async def serve(worker: Worker, signals: bool) -> None:
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


def _signalled(worker: Worker) -> None:
    """The first signal stops, the second one forces."""
    if worker.health().draining:
        worker.stop_now()
    else:
        worker.stop()
