"""Run tasks whose writes and whose completion are one transaction.

The task gets a connection in a transaction. When it returns, the worker completes the job on that
connection and commits: both hold, or neither. Whatever else comes of the task rolls it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from graphile_worker.errors import GraphileWorkerError
from graphile_worker.log import logger, shown
from graphile_worker.worker.context import ClaimedJob, Context, Middleware
from graphile_worker.worker.database.statements import Completing
from graphile_worker.worker.executors.call import RunnableTask
from graphile_worker.worker.executors.execute import Outcome, execute, failure
from graphile_worker.worker.executors.thread import Threads

#: Seconds after which a transaction that is open is worth a warning: vacuum waits for it.
LONG = 30.0
#: How long a job waits for which no connection was to be had; it uses no attempt.
RETRY_AFTER = timedelta(seconds=5)

#: Returns the statement that completes a job with its result, and how to read its answer.
Completes = Callable[[ClaimedJob, Any, float], Completing]


class NotHeldError(GraphileWorkerError):
    """The job was given to another worker, or is gone."""


class _UndoneError(Exception):
    """The task did not succeed: its transaction is rolled back."""


class Ended(NamedTuple):
    """How a job in a transaction ended."""

    #: None: it was lost.
    outcome: Outcome | None
    #: Whether the database knows already.
    is_written: bool


class TaskConnection(psycopg.Connection[Any]):
    """A connection for tasks that run in threads."""

    #: Whether a session of SQLAlchemy believes that it owns the connection.
    is_lent = False

    def commit(self) -> None:
        """Commit, unless lent: then the worker does."""
        if not self.is_lent:
            super().commit()

    def rollback(self) -> None:
        """Roll back, unless lent."""
        if not self.is_lent:
            super().rollback()

    def close(self) -> None:
        """Close, unless lent."""
        if not self.is_lent:
            super().close()


class AsyncTaskConnection(psycopg.AsyncConnection[Any]):
    """A connection for tasks that are coroutines."""

    is_lent = False

    async def commit(self) -> None:
        """Commit, unless lent: then the worker does."""
        if not self.is_lent:
            await super().commit()

    async def rollback(self) -> None:
        """Roll back, unless lent."""
        if not self.is_lent:
            await super().rollback()

    async def close(self) -> None:
        """Close, unless lent."""
        if not self.is_lent:
            await super().close()


class Transactions:
    """Runs jobs in transactions, on connections of its own: as many as may run at once."""

    def __init__(
        self, conninfo: str, *, size: int, prepare: bool, threads: Threads,
        middleware: tuple[Middleware, ...], completes: Completes,
    ) -> None:  # fmt: skip
        self._conninfo, self._size = conninfo, size
        self._kwargs = {"prepare_threshold": 5 if prepare else None}
        self._threads, self._middleware, self._completes = threads, middleware, completes
        self._pool: AsyncConnectionPool[AsyncTaskConnection] | None = None
        self._thread_pool: ConnectionPool[TaskConnection] | None = None

    async def run(self, runnable: RunnableTask, context: Context) -> Ended:
        """Run a job; raise CancelledError where it was cancelled before it was to be committed.

        From then on it is not cancelled any more: whether it is committed has to be known.
        """
        decided = asyncio.Event()
        inner = asyncio.ensure_future(self._run(runnable, context, decided))
        cancelled = False
        while not inner.done():
            try:
                await asyncio.shield(inner)
            except asyncio.CancelledError:
                if inner.done():
                    break
                if not decided.is_set():
                    cancelled = True
                    inner.cancel()
            except BaseException:
                break
        if inner.cancelled() or (cancelled and inner.exception() is not None):
            raise asyncio.CancelledError
        return inner.result()

    async def _run(self, runnable: RunnableTask, context: Context, decided: asyncio.Event) -> Ended:
        job, options = context.job, runnable.options
        loop = asyncio.get_running_loop()
        outcome: Outcome | None = None
        lend = self._in_loop if runnable.stops_at_once else self._in_thread
        alarm: asyncio.TimerHandle | None = None
        try:
            async with lend(context) as finish:
                alarm = loop.call_later(LONG, _warn, context)
                started = loop.time()
                outcome = await execute(runnable, context, self._middleware)
                if outcome.kind != "success":
                    raise _UndoneError
                if context.abort.is_set():
                    raise asyncio.CancelledError
                decided.set()
                await finish(self._completes(job, outcome.result, loop.time() - started))
        except _UndoneError:
            return Ended(outcome, is_written=False)
        except NotHeldError as error:
            logger.warning("%s", error)
            return Ended(None, is_written=False)
        except PoolTimeout as error:
            logger.warning("job %s waits: %s", job.id, shown(error))
            return Ended(Outcome("snooze", error, RETRY_AFTER), is_written=False)
        except Exception as error:
            # Where a commit was not answered, the job is gone, or still here and failed.
            return Ended(failure(error, job, options), is_written=False)
        finally:
            if alarm is not None:
                alarm.cancel()
            context.transaction_conn = None
        return Ended(outcome, is_written=True)

    @asynccontextmanager
    async def _in_loop(
        self, context: Context
    ) -> AsyncIterator[Callable[[Completing], Awaitable[None]]]:
        if self._pool is None:
            self._pool = AsyncConnectionPool(
                self._conninfo, min_size=0, max_size=self._size, open=False, kwargs=self._kwargs,
                connection_class=AsyncTaskConnection, check=AsyncConnectionPool.check_connection,
            )  # fmt: skip
            await self._pool.open()
        async with self._pool.connection() as conn:

            async def finish(completing: Completing) -> None:
                cursor = psycopg.AsyncCursor(conn)
                await cursor.execute(completing.query, completing.values)
                _check(context, await cursor.fetchall())

            async with conn.transaction():
                context.transaction_conn = conn
                yield finish

    @asynccontextmanager
    async def _in_thread(
        self, context: Context
    ) -> AsyncIterator[Callable[[Completing], Awaitable[None]]]:
        if self._thread_pool is None:
            self._thread_pool = ConnectionPool(
                self._conninfo, min_size=0, max_size=self._size, open=False, kwargs=self._kwargs,
                connection_class=TaskConnection, check=ConnectionPool.check_connection,
            )  # fmt: skip
            self._thread_pool.open()
        pool = self._thread_pool
        conn = await self._fetched(pool)
        block = conn.transaction()

        def finish_now(completing: Completing) -> None:
            cursor = psycopg.Cursor(conn)
            cursor.execute(completing.query, completing.values)
            _check(context, cursor.fetchall())

        async def finish(completing: Completing) -> None:
            await self._threads.start(lambda: finish_now(completing))

        def leave(error: BaseException | None) -> None:
            try:
                block.__exit__(type(error) if error else None, error, None)
            finally:
                pool.putconn(conn)

        try:
            await self._threads.start(block.__enter__)
            context.transaction_conn = conn
            yield finish
        except BaseException as error:
            if context.abort.is_set() or isinstance(error, asyncio.CancelledError):
                # Its thread may go on, and must not come upon another job's transaction.
                self._threads.start(lambda: _abandon(pool, conn, block))
            else:
                await asyncio.shield(self._threads.start(lambda: leave(_UndoneError())))
            raise
        else:
            await self._threads.start(lambda: leave(None))

    async def _fetched(self, pool: ConnectionPool[TaskConnection]) -> TaskConnection:
        getting = self._threads.start(pool.getconn)
        try:
            return await asyncio.shield(getting)
        except asyncio.CancelledError:
            getting.add_done_callback(partial(_give_back, pool))
            raise

    async def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            await self._pool.close(timeout=0.3)
        if self._thread_pool is not None:
            self._thread_pool.close(timeout=0.3)


def _check(context: Context, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        job = context.job
        raise NotHeldError(
            f"job {job.id}, task {job.task_identifier}, is no longer held by this worker:"
            " its transaction was rolled back"
        )


def _give_back(pool: ConnectionPool[TaskConnection], got: asyncio.Future[Any]) -> None:
    if not got.cancelled() and got.exception() is None:
        pool.putconn(got.result())


def _abandon(
    pool: ConnectionPool[TaskConnection],
    conn: TaskConnection,
    block: AbstractContextManager[psycopg.Transaction],
) -> None:
    """End a connection that a thread may still use; its server undoes the transaction."""
    try:
        if psycopg.capabilities.has_cancel_safe():
            conn.cancel_safe(timeout=5)
    except (psycopg.Error, OSError) as error:
        logger.debug("a statement could not be cancelled: %s", shown(error))
    conn.is_lent = False
    conn.close()
    pool.putconn(conn)
    # A block that is merely forgotten would roll back when it is collected: maybe amid the closing.
    with suppress(psycopg.Error):
        block.__exit__(_UndoneError, _UndoneError(), None)


def _warn(context: Context) -> None:
    job, conn = context.job, context.transaction_conn
    if conn is not None and conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        logger.warning(
            "job %s, task %s, has held its transaction open for %g seconds: vacuum cannot clean up"
            " what was deleted since, and its locks make others wait",
            job.id, job.task_identifier, LONG,
        )  # fmt: skip


# --- SQLAlchemy


@contextmanager
def session_on(conn: TaskConnection) -> Iterator[Any]:
    """Lend a Session of SQLAlchemy in the transaction of a connection."""
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import NullPool

    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: conn, poolclass=NullPool, use_native_hstore=False
    )
    conn.is_lent = True
    try:
        with engine.connect() as outer:
            outer.begin()
            with Session(outer, join_transaction_mode="create_savepoint") as session:
                yield session
                session.commit()
    finally:
        conn.is_lent = False


@asynccontextmanager
async def async_session_on(conn: AsyncTaskConnection) -> AsyncIterator[Any]:
    """Lend an AsyncSession of SQLAlchemy in the transaction of a connection."""
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
    from sqlalchemy.pool import NullPool

    async def lent(*_: Any, **__: Any) -> AsyncTaskConnection:
        return conn

    engine = create_async_engine(
        "postgresql+psycopg://", async_creator=lent, poolclass=NullPool, use_native_hstore=False
    )
    conn.is_lent = True
    try:
        async with engine.connect() as outer:
            await outer.begin()
            async with AsyncSession(outer, join_transaction_mode="create_savepoint") as session:
                yield session
                await session.commit()
    finally:
        conn.is_lent = False
