"""Wait for results: one connection and one thread for all who wait in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import select
import socket
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from graphile_worker import errors
from graphile_worker.client import drivers
from graphile_worker.client.records import verbs
from graphile_worker.client.records.verbs import Result
from graphile_worker.client.verbs import Settings
from graphile_worker.log import logger, shown

#: Seconds between two questions where no notification comes: at first, and at most.
FIRST_POLL, LONGEST_POLL = 0.05, 2.0
#: Seconds for which the database is told that results are awaited, and after which it is told anew.
WATCHED, WATCHED_ANEW = 60, 20.0
#: Seconds without anyone waiting after which the connection is closed.
LINGER = 5.0
#: Jobs that are asked for in one statement.
AT_ONCE = 1000


class Listener:
    """Asks the database for jobs whose results are awaited, when it is notified and now and then.

    While the database is away it tries on: those who wait decide for how long.
    """

    def __init__(self, dsn: str, schema: str) -> None:
        self._dsn, self._settings = dsn, Settings(schema)
        self._name = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(6)}"
        self._lock = threading.Lock()
        self._waiting: dict[int, list[Future[Result]]] = {}
        #: Jobs that were seen before they had ended.
        self._seen: set[int] = set()
        self._thread: threading.Thread | None = None
        #: The ends of a pipe by which the thread hears of one more who waits.
        self._ears, self._bell = -1, -1

    def wait_for(self, job_id: int) -> Future[Result]:
        """Return the future of how the job ends."""
        future: Future[Result] = Future()
        with self._lock:
            self._waiting.setdefault(job_id, []).append(future)
            if self._thread is None:
                self._ears, self._bell = os.pipe()
                os.set_blocking(self._ears, False)
                os.set_blocking(self._bell, False)
                self._thread = threading.Thread(
                    target=self._run, name="graphile_worker results", daemon=True
                )
                self._thread.start()
            with contextlib.suppress(BlockingIOError):  # it has been rung often enough
                os.write(self._bell, b"!")
        return future

    def _wanted(self) -> list[int]:
        with self._lock:
            for job_id, futures in list(self._waiting.items()):
                futures[:] = [future for future in futures if not future.done()]
                if not futures:
                    del self._waiting[job_id]
                    self._seen.discard(job_id)
            return list(self._waiting)

    def _run(self) -> None:
        failures = 0
        while True:
            try:
                self._serve()
            except psycopg.Error as error:
                if self._wanted():  # else no one misses a server that went away
                    failures += 1
                    if failures == 1 or not isinstance(error, psycopg.OperationalError):
                        logger.warning("waiting for results: %s", shown(error))
                    time.sleep(min(0.1 * 2**failures, 5.0) * random.uniform(0.5, 1.0))
            except errors.GraphileWorkerError as error:  # a right or the schema is missing
                self._fail(error)
            except BaseException as error:
                logger.exception("waiting for results failed")
                self._fail(error)
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    os.close(self._ears)
                    os.close(self._bell)
                    return

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for futures in waiting.values():
            for future in futures:
                with contextlib.suppress(Exception):
                    future.set_exception(error)

    def _serve(self) -> None:
        """Answer until no one has waited for a while."""
        with psycopg.connect(
            self._dsn, autocommit=True, fallback_application_name="graphile_worker results",
            connect_timeout=10,
        ) as conn:  # fmt: skip
            # A pooler may give each statement another session.
            conn.prepare_threshold = None
            conn.execute('listen "jobs:result"')
            watched_at, quiet_since, pause = -WATCHED_ANEW, time.monotonic(), FIRST_POLL
            while True:
                now = time.monotonic()
                if wanted := self._wanted():
                    quiet_since = now
                    if now - watched_at >= WATCHED_ANEW:
                        verb = verbs.watch_results(self._settings, self._name, WATCHED)
                        drivers.run(conn, verb)
                        watched_at = now
                    for start in range(0, len(wanted), AT_ONCE):
                        self._ask(conn, wanted[start : start + AT_ONCE])
                elif now - quiet_since > LINGER:
                    drivers.run(conn, verbs.watch_results(self._settings, self._name, 0))
                    return
                if self._heard(conn, pause * random.uniform(0.8, 1.2)):
                    pause = FIRST_POLL
                else:
                    pause = min(pause * 1.5, LONGEST_POLL)

    def _heard(self, conn: psycopg.Connection[Any], seconds: float) -> bool:
        """Wait for a notification or for one more who waits; return whether there was any."""
        ears, database = self._ears, conn.fileno()
        ready, _, _ = select.select([database, ears], [], [], seconds)
        if ears in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(ears, 65536)
        # Whatever they say, all that is awaited is asked for: anybody can send notifications.
        heard = list(conn.notifies(timeout=0)) if database in ready else []
        return bool(heard or ears in ready)

    def _ask(self, conn: psycopg.Connection[Any], job_ids: list[int]) -> None:
        found = drivers.run(conn, verbs.get_results(self._settings, job_ids))
        for job_id, result in found.items():
            answer: Result | errors.GraphileWorkerError | None = None
            if result.state in ("ready", "scheduled", "running"):
                self._seen.add(job_id)
                if not result.is_kept:
                    answer = errors.ResultUnavailable(
                        f"no result of job {job_id} will be kept: an administrator calls"
                        " keep_history for its task first"
                    )
            elif result.state is not None:
                answer = result
            elif job_id in self._seen:
                answer = errors.ResultUnavailable(
                    f"job {job_id} is gone without a record: a Node worker completed it, its"
                    " history is not kept any more, or somebody deleted it"
                )
            if answer is not None:
                self._answer(job_id, answer)

    def _answer(self, job_id: int, answer: Result | errors.GraphileWorkerError) -> None:
        with self._lock:
            futures = self._waiting.pop(job_id, [])
            self._seen.discard(job_id)
        for future in futures:
            with contextlib.suppress(Exception):  # cancelled by the one who waits
                if isinstance(answer, Result):
                    future.set_result(answer)
                else:
                    future.set_exception(answer)


#: By process, connection string and schema.
_listeners: dict[tuple[int, str, str], Listener] = {}
_lock = threading.Lock()


def listener(dsn: str, schema: str) -> Listener:
    """Return the listener of this process for a database and schema."""
    key = os.getpid(), dsn, schema
    with _lock:
        if key not in _listeners:
            _listeners[key] = Listener(dsn, schema)
        return _listeners[key]


def dsn_of(source: Any) -> str:
    """Return a connection string for what WorkerUtils was made with, to listen on.

    Raise InvalidConnection where there is none.
    """
    if isinstance(source, str):
        return source
    if drivers.is_pool(source):
        return make_conninfo(source.conninfo, **_named(source.kwargs or {}))
    if drivers.is_engine(source):
        url = source.url
        more = {"password": url.password} if url.password else {}
        port = {"port": url.port} if url.port else {}
        return make_conninfo(
            host=url.host, user=url.username, dbname=url.database, **port, **more,
            **{name: value for name, value in url.query.items() if isinstance(value, str)},
        )  # fmt: skip
    raw = getattr(source, "connection", source)
    if isinstance(raw, psycopg.Connection | psycopg.AsyncConnection):
        more = {"password": raw.info.password} if raw.info.password else {}
        return make_conninfo(raw.info.dsn, **more)
    raise errors.InvalidConnection(
        f"{type(source).__name__} has no connection string to wait for results with: make"
        " WorkerUtils from one, or from a pool or an engine"
    )


def _named(kwargs: dict[str, Any]) -> dict[str, Any]:
    known = {"host", "port", "user", "password", "dbname", "sslmode", "options"}
    return {name: value for name, value in kwargs.items() if name in known}


async def awaited(source: Any, schema: str, job_id: int, timeout: float | None) -> Any:
    """Wait in a coroutine for the result of a job, at most this many seconds."""
    future = listener(dsn_of(source), schema).wait_for(job_id)
    try:
        async with asyncio.timeout(timeout):
            found = await asyncio.wrap_future(future)
    except TimeoutError as error:
        raise _late(job_id, timeout) from error
    finally:
        future.cancel()
    return verbs.outcome(job_id, found)


def waited(source: Any, schema: str, job_id: int, timeout: float | None) -> Any:
    """Wait for the result of a job, at most this many seconds."""
    future = listener(dsn_of(source), schema).wait_for(job_id)
    try:
        found = future.result(timeout)
    except FutureTimeoutError as error:
        raise _late(job_id, timeout) from error
    finally:
        future.cancel()
    return verbs.outcome(job_id, found)


def _late(job_id: int, timeout: float | None) -> errors.ResultTimeout:
    return errors.ResultTimeout(f"job {job_id} has not ended within {timeout:g} seconds")
