"""The worker: starts its parts, runs until stopped, and loses no job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphile_worker.crontab import check_identifiers
from graphile_worker.errors import SchemaTooNew, StopIncomplete
from graphile_worker.log import logger, shown
from graphile_worker.naming import NODE_REVISION
from graphile_worker.worker.cluster.places import Places
from graphile_worker.worker.completer import Completer
from graphile_worker.worker.database.backoff import Backoff
from graphile_worker.worker.database.listener import Listener
from graphile_worker.worker.database.protocol import Protocol
from graphile_worker.worker.events import Event
from graphile_worker.worker.executors.call import Executors, RunnableTask
from graphile_worker.worker.executors.program import kill_programs
from graphile_worker.worker.fetcher import Fetcher
from graphile_worker.worker.jobs import RunningJobs
from graphile_worker.worker.lease import Identity, Lease
from graphile_worker.worker.options import WorkerOptions
from graphile_worker.worker.records.maintenance import maintain
from graphile_worker.worker.records.progress import Progress
from graphile_worker.worker.reviewer import Reviewer
from graphile_worker.worker.schedule.crontabs import Scheduler
from graphile_worker.worker.schedule.schedules import Schedules
from graphile_worker.worker.stopping import Stopping, serve
from graphile_worker.worker.task_loading import load_tasks

#: Seconds between two questions whether the schema was migrated: anybody can send notifications.
MIGRATION_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a worker."""

    ok: bool
    #: Whether LISTEN holds; None: the worker only polls.
    listening: bool | None
    last_fetch_seconds_ago: float | None
    last_heartbeat_seconds_ago: float | None
    draining: bool
    running: int
    prefetched: int
    problems: list[str]
    #: Of a worker for several databases: the health of each, by its place.
    nodes: dict[str, Health] = field(default_factory=dict)


class Shared:
    """What the workers of several databases share: their tasks, and places to run jobs."""

    def __init__(self, tasks: Any, options: WorkerOptions) -> None:
        self.executors = Executors(processes=options.executor_processes)
        self.tasks: Mapping[str, RunnableTask] = load_tasks(tasks, self.executors)
        self.places = Places(options.concurrency)

    async def close(self) -> None:
        """End the programs, threads and processes of the tasks."""
        kill_programs()
        await self.executors.close()


class Worker:
    """Runs jobs until it is stopped, or until none is due with ``once``.

    >>> worker = Worker(tasks, dsn="dbname=app", concurrency=20)
    >>> await worker.run()

    ``tasks`` is a registry, a mapping of functions, or a list of several of them; the options are
    those of WorkerOptions. Nothing connects before ``run``.
    """

    def __init__(
        self, tasks: Any, *, once: bool = False, shared: Shared | None = None,
        is_recurring: bool = True, **settings: Any,
    ) -> None:  # fmt: skip
        self.options = options = WorkerOptions(**settings)
        self.events, self._once = options.events, once
        self._is_alone = shared is None
        self._shared = shared = shared or Shared(tasks, options)
        self._tasks = shared.tasks
        names = sorted(self._tasks)
        self._failed: BaseException | None = None
        self._checking: asyncio.Task[None] | None = None
        self._protocol = Protocol(
            options.dsn, schema=options.schema, prepare=options.prepare,
            trusted=options.trust_owner, on_error=self._pool_error,
            holds_jobs=lambda: self._lease.held > 0,
        )  # fmt: skip
        self._lease = Lease(
            self._protocol, self.events, names,
            on_lost=self._abandon, on_due=lambda seconds: self._fetcher.wake_in(seconds),
            on_checked=lambda is_due: self._fetcher.checked_by_heartbeat(is_due),
        )  # fmt: skip
        self._completer = Completer(
            self._protocol, self.events, complete_delay=options.complete_delay,
            fail_delay=options.fail_delay, on_written=self._written, redact=options.redact,
        )  # fmt: skip
        self._progress = Progress(self._protocol)
        self._runs = RunningJobs(
            self._tasks, options, self._protocol, self._completer, self._progress,
            shared.executors.threads,
            on_end=shared.places.start,
        )  # fmt: skip
        self._fetcher = Fetcher(
            self._protocol, self._lease, self._runs, self._completer, options, names,
            shared.places, once=once,
        )  # fmt: skip
        self._schedules = Schedules(self._protocol, self.events, worker_id=lambda: self.worker_id)
        self._reviewer = Reviewer(self._protocol, self._lease, self._runs, self._fetcher)
        self._stopping = Stopping(
            self._fetcher, self._runs, self._completer, self._lease, options.grace
        )
        self._cron = self._scheduler() if is_recurring else None
        self._listener: Listener | None = None
        if options.listen and not once:
            self._listener = Listener(
                options.listen_dsn or options.dsn, self.events, worker_id=lambda: self.worker_id,
                on_jobs=self._fetcher.waking.notified, on_claimed=self._fetcher.waking.claimed,
                on_control=self._controlled, on_migration=self._migrated,
            )  # fmt: skip

    def _scheduler(self) -> Scheduler | None:
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
        return Scheduler(items, self._protocol, self.events, worker_id=lambda: self.worker_id)

    # --- asked from outside

    @property
    def worker_id(self) -> str:
        """The id under which jobs are fetched now."""
        return self._lease.current.worker_id

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping.asked.is_set()

    def stop(self) -> None:
        """Fetch no more jobs, return those not started, and wait for the others for the grace."""
        if not self.is_stopping:
            logger.info("stopping: %d jobs are running", len(self._runs))
            self._stopping.asked.set()
            self._fetcher.stop()

    def stop_now(self) -> None:
        """Stop, and fail the jobs that are running."""
        self.stop()
        self._stopping.forced.set()

    def health(self) -> Health:
        """Return whether the worker listens, fetches and has a current heartbeat."""
        problems, draining = [], self.is_stopping
        last = self._fetcher.last_fetch
        fetched = None if last is None else time.monotonic() - last
        listening = self._listener.listening if self._listener else None
        heartbeat = self._lease.age
        if listening is False:
            problems.append("LISTEN is lost: new jobs wait for the next poll")
        full = self._shared.places.free <= 0
        late = fetched is None or fetched > 2 * self.options.poll_interval + 5
        if late and not draining and not full:
            problems.append("no fetch has succeeded lately")
        if heartbeat is None or heartbeat > 25:
            problems.append("no heartbeat has reached the database lately")
        return Health(
            not problems, listening, fetched, heartbeat, draining, len(self._runs),
            len(self._fetcher), problems,
        )  # fmt: skip

    # --- the whole life

    async def run(self) -> None:
        """Run until stopped.

        Raise what no retry can fix when it starts, such as missing rights or schema; whatever goes
        wrong later is logged and retried. Raise SchemaTooNew where the schema was migrated, and
        StopIncomplete where the database did not hear of everything before the worker had to leave:
        a stop takes the grace and ten seconds at most, three after ``stop_now``.
        """
        self._loop = asyncio.get_running_loop()
        try:
            self._shared.places.join(self._fetcher)
            if await self._stopping.unless_asked(_task(self._begin(), "start")):
                self._emit("worker:start")
                await self._work()
        finally:
            await self._close()
        if self._failed is not None:
            raise self._failed

    async def _begin(self) -> None:
        await self._protocol.check()
        await self._lease.start()
        await self._check_revision()

    async def _work(self) -> None:
        background = [_task(self._completer.run(), "write"), _task(self._lease.run(), "heartbeat")]
        if self._protocol.has_controls:
            background.append(_task(self._reviewer.run(), "review"))
            background.append(_task(self._progress.run(), "progress"))
        if self._listener is not None:
            background.append(_task(self._listener.run(), "listen"))
        fetching = _task(self._fetcher.run(), "fetch")
        # Ends at once when the worker is told to stop.
        passing = []
        if self._cron is not None:
            passing.append(_task(_kept(self._cron.run, "recurring jobs"), "cron"))
        if self._protocol.has_controls and not self._once:
            passing.append(_task(_kept(self._schedules.run, "scheduled jobs"), "schedules"))
            passing.append(_task(maintain(self._protocol, self._lease), "history"))
        every = [*background, *passing, fetching]
        stopping = _task(self._stopping.asked.wait(), "stop")
        try:
            await asyncio.wait({*every, stopping}, return_when="FIRST_COMPLETED")
            for task in every:
                if task.done() and (error := task.exception()) is not None:
                    self._fail(error)
            self.stop()
            self._emit("worker:stop")
            for task in passing:
                task.cancel()
            leaving = _task(self._stopping.leave(fetching), "leave")
            every.append(leaving)
            if unwritten := await self._stopping.in_time(leaving):
                self._fail(StopIncomplete(unwritten))
            else:
                self._emit("worker:end")
        finally:
            for task in (*every, stopping):
                task.cancel()
            await asyncio.wait({*every, stopping}, timeout=0.3)

    async def _close(self) -> None:
        self._fetcher.close()
        if self._is_alone:
            await self._shared.close()
        await self._runs.close()
        await self._protocol.close()

    def _fail(self, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if self._failed is None:
            logger.critical("the worker stops: %s", shown(error))
            self._failed = error

    # --- what the parts tell

    def _abandon(self, identity: Identity) -> None:
        """Stop the jobs that run under an id that the worker has lost."""
        self._runs.abandon(identity)
        identity.held.clear()

    def _written(self, queues: bool, again: float | None) -> None:
        """A flush is done: queues may be free, and failed jobs are due some time."""
        if queues or self._once or self._fetcher.is_limited:
            self._fetcher.wake()
        if again is not None:
            self._fetcher.wake_in(again)

    def _controlled(self) -> None:
        """Look what has changed about the jobs held and the schedules."""
        self._reviewer.review_soon()
        self._schedules.check_soon()

    def _migrated(self) -> None:
        """Check whether the schema was migrated: any client can send this notification."""
        if self._checking is None or self._checking.done():
            self._checking = _task(self._recheck_revision(), "check revision")

    async def _recheck_revision(self) -> None:
        try:
            await self._check_revision()
        except SchemaTooNew as error:
            self._fail(error)
            self.stop()
        await asyncio.sleep(MIGRATION_PAUSE)

    async def _check_revision(self) -> None:
        revision = await self._protocol.breaking_revision()
        if revision > NODE_REVISION:
            raise SchemaTooNew(
                f"the schema was migrated to revision {revision}, which breaks this worker:"
                " run `pip install -U graphile-worker` and start it again"
            )

    def _pool_error(self, error: BaseException) -> None:
        if self.events.wanted("pool:error"):
            self._emit("pool:error", error=error)

    def _emit(self, name: str, **more: Any) -> None:
        self.events.emit(Event(name, self.worker_id, **more))


async def _kept(run: Callable[[], Awaitable[None]], what: str) -> None:
    """Run what adds jobs; start it again after an error."""
    backoff = Backoff(first=1.0, cap=60.0)
    while True:
        try:
            await run()
        except Exception as error:
            await asyncio.sleep(backoff.failed(f"adding {what} failed", error))


def _task(coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(coroutine, name=name)


async def run(tasks: Any, *, signals: bool = True, **options: Any) -> None:
    """Run jobs until SIGTERM or SIGINT, or until cancelled.

    >>> asyncio.run(run(tasks, dsn="dbname=app"))

    The first signal stops: jobs not started are returned, running ones have ``grace`` seconds.
    The second one fails those that run, and leaves. ``signals=False`` leaves signals alone, as
    outside the main thread. Raise a SchemaError where the schema is not what this package needs,
    AccessDenied without the level work, psycopg.OperationalError where there is no server when it
    starts, StopIncomplete where it had to leave before the database had heard of everything.
    """
    await serve(Worker(tasks, **options), signals)


async def run_once(tasks: Any, *, signals: bool = False, **options: Any) -> None:
    """Run the due jobs, and those that they add, until none is left.

    >>> await run_once(tasks, dsn="dbname=app")

    Recurring jobs are not added. Raise what ``run`` raises.
    """
    await serve(Worker(tasks, once=True, **options), signals)
