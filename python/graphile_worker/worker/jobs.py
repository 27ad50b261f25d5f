"""The running jobs: start them, cancel them, and report how they end."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from graphile_worker.errors import GraphileWorkerError, InvalidPayload, JobCancelled
from graphile_worker.log import logger, shown
from graphile_worker.worker.completer import Completer
from graphile_worker.worker.context import ClaimedJob, Context
from graphile_worker.worker.database.connections import Row, conninfo
from graphile_worker.worker.database.protocol import Protocol
from graphile_worker.worker.events import Event
from graphile_worker.worker.executors.call import RunnableTask
from graphile_worker.worker.executors.execute import Outcome, error_text, execute, failure
from graphile_worker.worker.executors.thread import Threads
from graphile_worker.worker.executors.transaction import Transactions
from graphile_worker.worker.lease import Identity
from graphile_worker.worker.options import WorkerOptions
from graphile_worker.worker.records.progress import Progress

_decode = json.JSONDecoder().decode
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]

#: Why a run is cancelled, as its task is told.
_REASONS = {
    "cancelled": "the job was cancelled",
    "lost": "the worker was presumed dead, and others run the job",
    "shutdown": "the worker stops, and its grace is over",
    "force": "the worker is stopped by force",
}


def _undecodable(error: Exception) -> InvalidPayload:
    return InvalidPayload(f"payload cannot be decoded: {error}")


def _decoded(text: str) -> Any:
    """Decode JSON; to look for white space around it takes as long as a small payload itself."""
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        return _decode(text)
    return value if end == len(text) else _decode(text)


class AbortedError(GraphileWorkerError):
    """The task was cancelled before it came to an end."""


def _create_task(
    coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, name: str
) -> asyncio.Task[None]:
    """Create a task; where Python can, run it at once until it waits: that is less work."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, name=name, eager_start=True)
    return loop.create_task(coroutine, name=name)


class _RunningJob:
    """A job that runs."""

    __slots__ = ("cancelled", "context", "identity", "is_written", "stopping", "task", "why")

    def __init__(self, identity: Identity, context: Context) -> None:
        self.identity, self.context = identity, context
        self.task: asyncio.Task[None] | None = None
        #: Why it was cancelled, of _REASONS; and by whom, where that was asked for.
        self.why: str | None = None
        self.cancelled: JobCancelled | None = None
        #: Whether the transaction of its task has written how it ended.
        self.is_written = False
        #: When its task is cancelled at last.
        self.stopping: asyncio.TimerHandle | None = None


class RunningJobs:
    """Runs jobs side by side and hands their outcomes to the completer.

    ``on_end`` is called when there is room for another.
    """

    def __init__(
        self, tasks: Mapping[str, RunnableTask], options: WorkerOptions, protocol: Protocol,
        completer: Completer, progress: Progress, threads: Threads,
        *, on_end: Callable[[], None],
    ) -> None:  # fmt: skip
        self._tasks, self._options = tasks, options
        self._protocol, self._completer, self._progress = protocol, completer, progress
        self._events, self._on_end = options.events, on_end
        self._runs: set[_RunningJob] = set()
        self._connections = _Connections(options)
        self._threads = threads
        self._transactions: Transactions | None = None
        #: Seconds that a job takes, the latest ones counting most; None: none has ended.
        self.average: float | None = None

    def __len__(self) -> int:
        return len(self._runs)

    def start(self, row: Row, identity: Identity) -> None:
        """Run a job that was fetched."""
        *columns, _ = row
        text, error = columns[2], None
        if text is not None:
            try:
                columns[2] = _decoded(text)
            except (ValueError, RecursionError) as undecoded:
                error = _undecodable(undecoded)
        loop = asyncio.get_running_loop()
        context = Context(
            ClaimedJob(columns), self._connections.lend, loop, self._options.schema,
            self._progress.report, self._protocol.server,
        )  # fmt: skip
        run = _RunningJob(identity, context)
        self._runs.add(run)
        # With a name, none is made up for it.
        task = _create_task(self._one(run, error, text is None), loop, row[1])
        run.task = run.task or task

    def fetched_again(self, job_id: int) -> None:
        """Stop a job's earlier run: another worker had the job, and it was fetched again."""
        for run in list(self._runs):
            if run.context.job.id == job_id:
                self._cancel(run, "lost")

    def abandon(self, identity: Identity) -> None:
        """Stop the jobs that run under an id that the worker has lost."""
        for run in list(self._runs):
            if run.identity is identity:
                self._cancel(run, "lost")

    def cancel_job(self, identity: Identity, job_id: int, cancelled: JobCancelled) -> None:
        """Stop a job that was cancelled: a coroutine now, anything else after the grace.

        What it does after it was told so does not count.
        """
        for run in list(self._runs):
            if run.identity is identity and run.context.job.id == job_id and run.why is None:
                logger.info("job %s is stopped: %s", job_id, cancelled)
                run.why, run.cancelled = "cancelled", cancelled
                run.context.abort.set(str(cancelled))
                runnable = self._tasks[run.context.job.task_identifier]
                grace = 0.0 if runnable.stops_at_once else self._options.grace
                loop = asyncio.get_running_loop()
                if run.task is not None:
                    run.stopping = loop.call_later(grace, run.task.cancel)

    def cancel(self, why: str) -> None:
        """Stop all jobs: ``shutdown`` returns them, ``force`` fails them."""
        for run in list(self._runs):
            self._cancel(run, why)

    async def ended(self, seconds: float) -> None:
        """Wait until no job runs, at most this many seconds."""
        if runs := {run.task for run in self._runs if run.task}:
            await asyncio.wait(runs, timeout=seconds)

    async def close(self) -> None:
        """Close the tasks' connections, and log the jobs that do not end."""
        for run in self._runs:
            logger.error(
                "job %s does not end: it is returned although its task still runs",
                run.context.job.id,
            )
        await self._connections.close()
        if self._transactions is not None:
            await self._transactions.close()

    async def _one(self, run: _RunningJob, error: Exception | None, is_large: bool) -> None:
        """Run a job and report its outcome to the database, whatever the task does."""
        run.task = asyncio.current_task()
        started = time.perf_counter()
        outcome: Outcome | None = None
        job = run.context.job
        try:
            if is_large:
                error = await self._fetch_payload(run)
                job = run.context.job
            if run.why != "lost":
                outcome = await self._outcome(run, error)
        except asyncio.CancelledError:
            # Aborted, it has no outcome; but a task may also cancel itself.
            if run.cancelled is None and run.why in (None, "force"):
                why = "the worker was stopped by force" if run.why else "the task was cancelled"
                outcome = failure(AbortedError(why), job, self._tasks[job.task_identifier].options)
        except BaseException as raised:
            # SystemExit and the like are the task's failure, not the worker's end.
            outcome = failure(raised, job, self._tasks[job.task_identifier].options)
        if run.cancelled is not None and run.why != "lost" and not run.is_written:
            outcome = Outcome("failure", run.cancelled, final=True)
        self._end(run, outcome, time.perf_counter() - started)

    async def _outcome(self, run: _RunningJob, error: Exception | None) -> Outcome | None:
        job = run.context.job
        runnable = self._tasks[job.task_identifier]
        if self._events.wanted("job:start"):
            self._events.emit(Event("job:start", job.locked_by, job=job))
        if error is not None:
            return failure(error, job, runnable.options)
        if runnable.options.transaction:
            return await self._in_transaction(runnable, run)
        return await execute(runnable, run.context, self._options.middleware)

    async def _in_transaction(self, runnable: RunnableTask, run: _RunningJob) -> Outcome | None:
        if self._transactions is None:
            options = self._options
            self._transactions = Transactions(
                conninfo(options.dsn), size=options.max_connections or options.concurrency,
                prepare=options.prepare, threads=self._threads, middleware=options.middleware,
                completes=self._completer.completing,
            )  # fmt: skip
        outcome, run.is_written = await self._transactions.run(runnable, run.context)
        if outcome is None:
            run.why = run.why or "lost"
            run.identity.held.discard(run.context.job.id)
        return outcome

    async def _fetch_payload(self, run: _RunningJob) -> Exception | None:
        """Get a payload that was too large to be fetched ahead; return why it cannot be decoded."""
        job = run.context.job
        text = await self._protocol.payload(job.locked_by, job.id)
        if text is None:  # it was given away
            run.why = run.why or "lost"
            run.identity.held.discard(job.id)
            return None
        columns = list(job)
        try:
            columns[2] = _decoded(text)
        except (ValueError, RecursionError) as undecoded:
            return _undecodable(undecoded)
        run.context.job = ClaimedJob(columns)
        return None

    def _end(self, run: _RunningJob, outcome: Outcome | None, seconds: float) -> None:
        self._runs.discard(run)
        if run.stopping is not None:
            run.stopping.cancel()
        average = self.average
        self.average = seconds if average is None else 0.9 * average + 0.1 * seconds
        job = run.context.job
        self._progress.forget(job.id)
        if run.why != "lost":
            if run.is_written and outcome is not None:
                self._completer.note_written((run.identity, job, outcome, seconds))
            elif outcome is not None:
                self._completer.add((run.identity, job, outcome, seconds))
            else:  # aborted: the end of the id gives it back
                run.identity.held.discard(job.id)
        self._on_end()
        if run.why != "lost" and outcome is not None:
            try:
                self._emit_end(job, outcome, seconds)
            except BaseException as error:  # of the program's logging
                logger.error("job %s: telling of it failed: %s", job.id, shown(error))

    def _emit_end(self, job: ClaimedJob, outcome: Outcome, seconds: float) -> None:
        if outcome.kind == "success":
            name = "job:success"
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug(
                    "job %s, task %s: done in %.3f s", job.id, job.task_identifier, seconds
                )
        elif outcome.kind == "snooze":
            name = "job:snoozed"
        elif isinstance(outcome.error, JobCancelled):
            name = "job:cancelled"
        else:
            assert outcome.error is not None
            name = "job:failed" if outcome.final else "job:error"
            logger.log(
                logging.ERROR if outcome.final else logging.WARNING,
                "job %s, task %s, attempt %s of %s failed%s: %s",
                job.id, job.task_identifier, job.attempts, job.max_attempts,
                " for good" if outcome.final else "",
                (error_text(outcome.error).splitlines() or [""])[0],
                exc_info=outcome.error if logger.isEnabledFor(logging.DEBUG) else None,
                extra={"job_id": job.id, "task_identifier": job.task_identifier},
            )  # fmt: skip
        if self._events.wanted(name):
            self._events.emit(
                Event(name, job.locked_by, job=job, error=outcome.error, seconds=seconds)
            )

    def _cancel(self, run: _RunningJob, why: str) -> None:
        run.why = run.why or why
        run.context.abort.is_forced = why == "force"
        run.context.abort.set(_REASONS[why])
        if run.task is not None:
            run.task.cancel()


class _Connections:
    """A connection pool for tasks, opened at its first use."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._pool: AsyncConnectionPool[Any] | None = None

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Lend a connection in a transaction of its own."""
        if self._pool is None:
            options = self._options
            self._pool = AsyncConnectionPool(
                conninfo(options.dsn), min_size=0, open=False,
                max_size=options.max_connections or min(options.concurrency, 10),
                kwargs={"prepare_threshold": 5 if options.prepare else None},
                check=AsyncConnectionPool.check_connection,
            )  # fmt: skip
            await self._pool.open()
        async with self._pool.connection() as conn:
            yield conn

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close(timeout=0.3)
