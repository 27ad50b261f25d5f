"""The worker: takes jobs, runs them side by side, and stops without losing any."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from graphile_worker.crontab import check_identifiers
from graphile_worker.errors import GraphileWorkerError, InvalidPayload, SchemaTooNew
from graphile_worker.scripts import NODE_REVISION
from graphile_worker.worker.calling import Executors, RunnableTask
from graphile_worker.worker.context import ClaimedJob, Context
from graphile_worker.worker.cron import Cron
from graphile_worker.worker.events import Event
from graphile_worker.worker.execution import Outcome, error_text, execute, failure
from graphile_worker.worker.listener import Listener
from graphile_worker.worker.loading import load_tasks
from graphile_worker.worker.options import WorkerOptions
from graphile_worker.worker.presence import Identity, Presence
from graphile_worker.worker.programs import KILL_AFTER
from graphile_worker.worker.protocol import (
    Protocol,
    Row,
    conninfo,
    is_passing,
    is_uncertain,
)
from graphile_worker.worker.waiting import Backoff, happens
from graphile_worker.worker.writing import Writer

logger = logging.getLogger("graphile_worker")
_decode = json.JSONDecoder().decode

#: Seconds that aborted tasks have to end: more than a program has between SIGTERM and SIGKILL.
ABORT_GRACE = KILL_AFTER + 3.0
#: No more jobs are taken ahead than this by default.
MOST_AHEAD = 500
#: Taken ahead is what runs in about so many seconds.
AHEAD = 0.25


#: Why a run is cancelled, as its task is told.
_REASONS = {
    "lost": "the worker was presumed dead, and others run the job",
    "shutdown": "the worker stops, and its grace is over",
    "force": "the worker is stopped by force",
}


class AbortedError(GraphileWorkerError):
    """The task was cancelled before it came to an end."""


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


class _Run:
    """A job that runs."""

    __slots__ = ("context", "identity", "task", "why")

    def __init__(self, identity: Identity, context: Context) -> None:
        self.identity, self.context = identity, context
        self.task: asyncio.Task[None] | None = None
        #: Why it was cancelled, of _REASONS.
        self.why: str | None = None


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
        self._names = sorted(self._tasks)
        self._queue: deque[tuple[Row, Identity, float]] = deque()
        self._runs: set[_Run] = set()
        self._average: float | None = None
        self._failed: BaseException | None = None
        self._last_fetch: float | None = None
        self._pool: AsyncConnectionPool[Any] | None = None
        self._wake, self._room = asyncio.Event(), asyncio.Event()
        self._stop, self._force = asyncio.Event(), asyncio.Event()
        self._due_timer: asyncio.TimerHandle | None = None
        self._protocol = Protocol(
            options.dsn, schema=options.schema, prepare=options.prepare, on_error=self._pool_error
        )
        self._presence = Presence(
            self._protocol, self.events, self._names,
            on_lost=self._abandon, on_due=self._wake_in,
        )  # fmt: skip
        self._writer = Writer(
            self._protocol, self.events, complete_delay=options.complete_delay,
            fail_delay=options.fail_delay, on_written=self._written,
        )  # fmt: skip
        self._cron = self._scheduler()
        self._listener: Listener | None = None
        if options.listen and not self._once:
            self._listener = Listener(
                options.listen_dsn or options.dsn, self.events, worker_id=lambda: self.worker_id,
                on_jobs=self._wake.set, on_migration=self._migrated,
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
            self._wake.set()
            self._room.set()

    def stop_now(self) -> None:
        """Stop, and fail the jobs that are running."""
        self.stop()
        self._force.set()

    def health(self) -> Health:
        """Return whether the worker listens, fetches and lives in the database's eyes."""
        now, problems = time.monotonic(), []
        fetched = None if self._last_fetch is None else now - self._last_fetch
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
            len(self._queue), problems,
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
        fetching: asyncio.Task[Any] = asyncio.create_task(self._fetch(), name="fetch")
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
                await self._give_back(list(self._queue))
            self._queue.clear()
            await self._ended(self.options.grace, forced)
            for run in list(self._runs):
                self._cancel(run, "force" if self._force.is_set() else "shutdown")
            await self._ended(ABORT_GRACE)
            for run in list(self._runs):
                logger.error(
                    "job %s does not end: it is given back although its task still runs",
                    run.context.job.id,
                )
        finally:
            forced.cancel()

    async def _ended(self, seconds: float, *unless: asyncio.Task[Any]) -> None:
        """Wait until nothing runs any more, the time is up, or one of the others is done."""
        if runs := [run.task for run in self._runs if run.task]:
            ended = asyncio.gather(*runs, return_exceptions=True)
            await asyncio.wait({ended, *unless}, timeout=seconds, return_when="FIRST_COMPLETED")

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
        if self._due_timer is not None:
            self._due_timer.cancel()
        await self._executors.close()
        if self._pool is not None:
            await self._pool.close()
        await self._protocol.close()

    def _fail(self, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if self._failed is None:
            logger.critical("the worker stops: %s", error)
            self._failed = error

    # --- taking

    def _ahead(self) -> int:
        """Return how many jobs to hold beyond those that run."""
        if self.options.prefetch is not None:
            return self.options.prefetch
        if self._average is None:
            return 0
        return min(MOST_AHEAD, int(AHEAD * self.options.concurrency / max(self._average, 1e-6)))

    def _want(self) -> int:
        """Return how many jobs to take now."""
        ahead, waiting = self._ahead(), len(self._queue)
        free = self.options.concurrency - len(self._runs) - waiting
        if free > 0:
            return free + ahead
        return ahead - waiting if waiting <= ahead // 2 else 0

    async def _fetch(self) -> None:
        """Take jobs whenever there is room for them and a reason to look."""
        backoff, more, idle = Backoff(), True, 1.0
        while not self._stopping:
            if not more:
                woken = await happens(self._wake, min(idle, self.options.poll_interval))
                idle = 1.0 if woken else idle * 2
            while (want := self._want()) <= 0 and not self._stopping:
                self._room.clear()
                await self._give_back_old()
                await happens(self._room, self.options.prefetch_ttl if self._queue else None)
            if self._stopping:
                return
            flags = await self._forbidden()
            identity = self._presence.current
            self._wake.clear()
            started = time.perf_counter()
            try:
                rows = await self._protocol.take(identity.worker_id, want, self._names, flags)
            except Exception as error:
                if not is_passing(error):
                    raise
                wait = backoff.failed("taking jobs failed", error)
                if is_uncertain(error):
                    await self._presence.doubt(identity)
                await happens(self._stop, wait)
                more = True
                continue
            backoff.reset()
            self._last_fetch = now = time.monotonic()
            more = len(rows) >= want
            if rows:
                idle = 1.0
                for row in rows:
                    if row[0] in identity.held:
                        self._taken_again(row[0])
                    identity.held.add(row[0])
                    self._queue.append((row, identity, now))
                if self.events.wanted("fetch"):
                    seconds = time.perf_counter() - started
                    self._emit("fetch", count=len(rows), seconds=seconds)
                self._start()
            elif self._once and not self._runs and not self._queue and not self._writer.pending:
                return
            if not more:
                self._presence.look()

    def _taken_again(self, job_id: int) -> None:
        """A job that is held here was free: it was given away, or what became of it is written."""
        self._writer.forget(job_id)
        for run in list(self._runs):
            if run.context.job.id == job_id:
                self._cancel(run, "lost")

    async def _forbidden(self) -> list[str] | None:
        flags: Any = self.options.forbidden_flags
        if callable(flags):
            flags = flags()
            if inspect.isawaitable(flags):
                flags = await flags
        return list(flags) if flags else None

    async def _give_back(self, queued: list[tuple[Row, Identity, float]]) -> None:
        by_identity: dict[Identity, list[int]] = {}
        for row, identity, _ in queued:
            by_identity.setdefault(identity, []).append(row[0])
        for identity, ids in by_identity.items():
            if not identity.lost:
                await self._protocol.give_back(identity.worker_id, ids)
            identity.held.difference_update(ids)

    async def _give_back_old(self) -> None:
        """Let others have what was taken ahead and did not get its turn."""
        limit = time.monotonic() - self.options.prefetch_ttl
        old = []
        while self._queue and self._queue[0][2] < limit:
            old.append(self._queue.popleft())
        if old:
            logger.info("%d jobs taken ahead did not get their turn and are given back", len(old))
            await self._give_back(old)

    def _wake_in(self, seconds: float) -> None:
        """Look at the queue after so many seconds, when a job is due."""
        at = self._loop.time() + seconds + 0.001
        timer = self._due_timer
        if timer is not None:
            if self._loop.time() < timer.when() <= at:
                return
            timer.cancel()
        self._due_timer = self._loop.call_at(at, self._wake.set)

    def _written(self, queues: bool, again: float | None) -> None:
        """A flush is done: queues may be free, and failed jobs are due some time."""
        if queues or self._once:
            self._wake.set()
        if again is not None:
            self._wake_in(again)

    # --- running

    def _start(self) -> None:
        while self._queue and len(self._runs) < self.options.concurrency and not self._stopping:
            row, identity, _ = self._queue.popleft()
            if identity.lost:
                continue
            error: Exception | None = None
            try:
                row = (row[0], row[1], _decode(row[2]), *row[3:])
            except (ValueError, RecursionError) as undecoded:
                error = InvalidPayload(f"payload cannot be decoded: {undecoded}")
            context = Context(
                ClaimedJob._make(row), self._connection, self._loop, self.options.schema
            )
            run = _Run(identity, context)
            self._runs.add(run)
            run.task = self._loop.create_task(self._one(run, error))

    async def _one(self, run: _Run, error: Exception | None) -> None:
        """Run a job to its end, and see that the database hears of it."""
        context, events = run.context, self.events
        started = time.perf_counter()
        outcome: Outcome | None = None
        runnable = self._tasks[context.job.task_identifier]
        try:
            if events.wanted("job:start"):
                self._emit("job:start", job=context.job)
            if error is not None:
                outcome = failure(error, context.job, runnable.options)
            else:
                outcome = await execute(runnable, context, self.options.middleware)
        except asyncio.CancelledError:
            # Aborted, it has no outcome; but a task may also cancel itself.
            if run.why in (None, "force"):
                why = "the worker was stopped by force" if run.why else "the task was cancelled"
                outcome = failure(AbortedError(why), context.job, runnable.options)
        except BaseException as raised:
            # SystemExit and the like are the task's failure, not the worker's end.
            outcome = failure(raised, context.job, runnable.options)
        self._end(run, outcome, time.perf_counter() - started)

    def _end(self, run: _Run, outcome: Outcome | None, seconds: float) -> None:
        self._runs.discard(run)
        average = self._average
        self._average = seconds if average is None else 0.9 * average + 0.1 * seconds
        if run.why != "lost":
            job = run.context.job
            if outcome is not None:
                self._tell(job, outcome, seconds)
                self._writer.add((run.identity, job, outcome))
            else:  # aborted: the end of the id gives it back
                run.identity.held.discard(job.id)
        self._start()
        self._room.set()

    def _tell(self, job: ClaimedJob, outcome: Outcome, seconds: float) -> None:
        if outcome.kind == "success":
            name = "job:success"
            logger.debug("job %s, task %s: done in %.3f s", job.id, job.task_identifier, seconds)
        elif outcome.kind == "snooze":
            name = "job:snoozed"
        else:
            assert outcome.error is not None
            name = "job:failed" if outcome.final else "job:error"
            logger.log(
                logging.ERROR if outcome.final else logging.WARNING,
                "job %s, task %s, attempt %s of %s failed%s: %s",
                job.id, job.task_identifier, job.attempts, job.max_attempts,
                " for good" if outcome.final else "", error_text(outcome.error).splitlines()[0],
                exc_info=outcome.error if logger.isEnabledFor(logging.DEBUG) else None,
                extra={"job_id": job.id, "task_identifier": job.task_identifier},
            )  # fmt: skip
        if self.events.wanted(name):
            self._emit(name, job=job, error=outcome.error, seconds=seconds)

    def _cancel(self, run: _Run, why: str) -> None:
        run.why = run.why or why
        run.context.abort.set(_REASONS[why])
        if run.task is not None:
            run.task.cancel()

    def _abandon(self, identity: Identity) -> None:
        """Stop what runs under an id that is not the worker's any more."""
        for run in list(self._runs):
            if run.identity is identity:
                self._cancel(run, "lost")
        identity.held.clear()

    # --- what tasks use, and what is told

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Lend a connection in a transaction of its own."""
        if self._pool is None:
            most = self.options.max_connections or min(self.options.concurrency, 10)
            self._pool = AsyncConnectionPool(
                conninfo(self.options.dsn), min_size=0, max_size=most, open=False,
                kwargs={"prepare_threshold": 5 if self.options.prepare else None},
                check=AsyncConnectionPool.check_connection,
            )  # fmt: skip
            await self._pool.open()
        async with self._pool.connection() as conn:
            yield conn

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
