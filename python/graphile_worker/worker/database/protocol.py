"""The worker's side of the database: one statement for each step in a job's life."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Container, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import psycopg

from graphile_worker.client import verbs
from graphile_worker.client.drivers import arun, translated
from graphile_worker.client.statements import in_schema
from graphile_worker.client.tracing import Server, server_of
from graphile_worker.errors import InvalidConnection
from graphile_worker.log import logger
from graphile_worker.ownership import OWNERS, check_owners
from graphile_worker.worker.database.backoff import Backoff
from graphile_worker.worker.database.connections import (
    DEADLINE,
    Connection,
    DirectConnection,
    NotConnectedError,
    Row,
    conninfo,
)
from graphile_worker.worker.database.failures import is_hopeless, is_of_jobs
from graphile_worker.worker.database.statements import (
    TEXTS,
    Completing,
    Fetched,
    Heartbeat,
    Records,
    Verdict,
    finishing,
    split_time,
)

_MIXED_UP = "the worker's prepared statements are mixed up by a pooler: pass prepare=False"
#: Seconds that looking after the history may take.
MAINTENANCE_DEADLINE = 300.0
#: Seconds without a statement after which a connection is closed, while no job is held.
UNUSED_AFTER = 5.0
#: Bytes of payloads that one fetch brings, in about.
FETCH_BYTES = 32 << 20
LEAST_PAYLOAD, MOST_PAYLOAD = 1 << 10, 256 << 10


class Protocol:
    """The functions of the extension that a worker calls.

    ``take`` is tried once, since its outcome may be uncertain. ``finish``, ``fail`` and
    ``give_back`` are repeated while the database is away, and raise what it says of these jobs.
    Everything else is repeated until it succeeds.
    """

    def __init__(
        self, dsn: str, *, schema: str, prepare: bool = True, trusted: Iterable[str] = (),
        on_error: Callable[[BaseException], None] = lambda error: None,
        holds_jobs: Callable[[], bool] = lambda: True,
    ) -> None:  # fmt: skip
        self._dsn, self._schema, self._prepare = conninfo(dsn), schema, prepare
        self._trusted, self._on_error = tuple(trusted), on_error
        self._holds_jobs = holds_jobs
        self._connections: dict[str, Connection] = {
            "fetch": DirectConnection(self._connect, prepare=prepare),
            "complete": DirectConnection(self._connect, prepare=prepare),
            "heartbeat": Connection(self._connect),
            # For what may take long: no heartbeat and no result waits for it.
            "other": Connection(self._connect),
            # Open only while it is used.
            "maintenance": Connection(self._connect),
        }
        #: Host and port of the server, as far as one was connected to.
        self.server: Server | None = None
        #: Whether the database knows pauses, cancellations, schedules and history.
        self.has_controls = True
        #: Held from a take until its jobs are known, and while it is repeated how jobs ended.
        self.fetching = asyncio.Lock()
        self._statements = {
            verb: in_schema(verb, "work", text, schema) for verb, text in TEXTS.items()
        }

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        threshold, name = 0 if self._prepare else None, "graphile_worker"
        conn = await psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, prepare_threshold=threshold, fallback_application_name=name
        )
        self.server = server_of(conn)
        return conn

    async def check(self) -> None:
        """Raise a SchemaError unless the schema has what is called here.

        On an older one ``has_controls`` is false: nothing can be cancelled or scheduled there, and
        a job that pauses its queue only waits itself.
        """
        conn = await self._connections["heartbeat"].connection()
        try:
            async with asyncio.timeout(DEADLINE):
                cursor = await conn.execute(OWNERS, [self._schema])
                check_owners(await cursor.fetchall(), self._schema, self._trusted)
                version = await arun(conn, verbs.check(self._schema))
                self.has_controls = verbs.has_controls(version)
        except psycopg.errors.DuplicatePreparedStatement as error:
            raise InvalidConnection(_MIXED_UP) from error
        except TimeoutError as error:
            raise psycopg.OperationalError(
                f"the server does not answer: timed out after {DEADLINE:g} seconds"
            ) from error

    def _beside_jobs(self, connection: str) -> str:
        """Return the connection for what is said beside the jobs.

        No job waits for it while none is held: one connection is enough then.
        """
        return connection if self._holds_jobs() else "fetch"

    async def close(self) -> None:
        """Close every connection."""
        for connection in self._connections.values():
            await connection.close()

    async def _rows(
        self, connection: str, verb: str, values: Sequence[Any], seconds: float = DEADLINE
    ) -> list[Row]:
        """Run a statement once; errors with a meaning of their own are raised as ours."""
        statement = self._statements[verb]
        try:
            return await self._connections[connection].rows(statement.encoded, values, seconds)
        except Exception as error:
            self._on_error(error)
            if isinstance(error, NotConnectedError):
                raise
            if isinstance(error, psycopg.errors.DuplicatePreparedStatement):
                raise InvalidConnection(_MIXED_UP) from error
            ours = translated(error, statement)
            if ours is None:
                raise
            raise ours from error

    async def _persist(
        self, connection: str, verb: str, values: Sequence[Any],
        again: Callable[[], Sequence[Any]] | None = None,
        *, unless: Callable[[BaseException], bool] = lambda error: False,
        seconds: float = DEADLINE,
    ) -> list[Row]:  # fmt: skip
        """Run a statement until it succeeds; raise only errors for which ``unless`` is true.

        ``again`` gives a repeat its values, where they change.
        """
        backoff = Backoff()
        while True:
            try:
                if backoff.failures and again is not None:
                    await self._connections[connection].ready(seconds)
                    async with self.fetching:
                        rows = await self._rows(connection, verb, again(), seconds)
                else:
                    rows = await self._rows(connection, verb, values, seconds)
            except Exception as error:
                if unless(error):
                    raise
                await asyncio.sleep(backoff.failed(f"{verb} failed", error))
            else:
                if backoff.failures:
                    logger.info("%s succeeded after %d failures", verb, backoff.failures)
                return rows

    async def fetch(
        self, worker_id: str, count: int, tasks: list[str], forbidden: list[str] | None,
        tell: str | None = None,
    ) -> Fetched:  # fmt: skip
        """Take up to so many jobs, once; see ``is_uncertain`` for errors.

        Large payloads are None: see ``payload``. ``tell`` is what other workers are told if jobs
        were claimed and none is left.
        """
        largest = min(MOST_PAYLOAD, max(LEAST_PAYLOAD, FETCH_BYTES // count))
        values: tuple[Any, ...] = (largest, worker_id, count, tasks, forbidden)
        if tell is None:
            rows = await self._rows("fetch", "get_jobs", values)
        else:
            values = (largest, count, tell, *values[1:])
            rows = await self._rows("fetch", "get_jobs_and_tell", values)
        return Fetched.of(rows, count)

    async def payload(self, worker_id: str, job_id: int) -> str | None:
        """Return the payload of a job; None: the worker does not hold it any more."""
        ((text,),) = await self._persist("other", "get_payload", (worker_id, job_id))
        return None if text is None else str(text)

    async def breaking_revision(self) -> int:
        """Return the highest revision of Node's schema that earlier workers do not run on."""
        ((revision,),) = await self._persist("heartbeat", "schema_revision", ())
        return int(revision or 0)

    async def complete(
        self, worker_id: str, ids: list[int], records: Records | None = None
    ) -> tuple[list[int], list[int]]:
        """Delete jobs that are done; return those that were not the worker's any more.

        Also return those that are to be completed with their records: without ``records`` they were
        not touched.
        """
        verb, values = finishing(worker_id, ids, records, self.has_controls)
        rows = await self._persist("complete", verb, values, unless=is_of_jobs)
        late = [job for job, *done in rows if done != [None]]
        return late, [job for job, *done in rows if done == [None]]

    def completing(self, worker_id: str, job_id: int, records: Records) -> Completing:
        """Return the statement that deletes a job which is done, for a transaction of its task."""
        verb, values = finishing(worker_id, [job_id], records, self.has_controls)
        return Completing(self._statements[verb].encoded, values)

    async def fail(
        self, worker_id: str, failures: list[dict[str, Any]], fetched_again: Container[int] = ()
    ) -> list[int]:
        """Put failed jobs back; return those that were not the worker's any more.

        What may have been written is not repeated of jobs that the worker has taken anew since.
        """

        def values() -> tuple[Any, ...]:
            return worker_id, json.dumps(
                [each for each in failures if each["id"] not in fetched_again]
            )

        rows = await self._persist("complete", "fail_jobs", values(), values, unless=is_of_jobs)
        return [job for (job,) in rows]

    async def return_jobs(
        self, worker_id: str, ids: list[int], when: datetime | timedelta | None = None,
        fetched_again: Container[int] = (),
    ) -> None:  # fmt: skip
        """Return jobs without using up the attempt; they wait until ``when``, if given.

        ``anew`` is as for ``fail``.
        """
        at, delay = split_time(when)

        def values() -> tuple[Any, ...]:
            return worker_id, [job_id for job_id in ids if job_id not in fetched_again], at, delay

        await self._persist("complete", "return_jobs", values(), values, unless=is_of_jobs)

    async def return_and_pause(
        self, worker_id: str, job_id: int, scope: str, when: datetime | timedelta,
        reason: str | None,
    ) -> None:  # fmt: skip
        """Return a job without using up the attempt, and pause its queue or task until then."""
        at, delay = split_time(when)
        if not self.has_controls:
            await self.return_jobs(worker_id, [job_id], when)
            return
        values = (worker_id, job_id, scope, at, delay, reason)
        await self._persist("complete", "return_and_pause", values, unless=is_of_jobs)

    async def run_schedules(self) -> tuple[list[dict[str, Any]], float | None]:
        """Add what is due by the schedules; return the runs, and the seconds until the next one."""
        connection = self._beside_jobs("other")
        ((runs, seconds),) = await self._persist(connection, "run_schedules", ())
        return json.loads(runs), seconds

    async def review(self, worker_id: str, prefetched: list[int]) -> list[Verdict]:
        """Return which jobs of the worker were cancelled, and which prefetched ones are paused."""
        rows = await self._persist("other", "review_jobs", (worker_id, prefetched))
        return [Verdict(*row) for row in rows]

    async def report_progress(
        self, worker_id: str, reports: list[tuple[int, float | None, str | None]]
    ) -> None:
        """Write how far jobs are, once."""
        ids, fractions, messages = map(list, zip(*reports, strict=True))
        await self._rows("other", "report_progress", (ids, fractions, messages, worker_id))

    async def maintain_history(self) -> tuple[int, int, int]:
        """Look after the history, once; return what was dropped and deleted."""
        connection = "maintenance"
        try:
            (row,) = await self._rows(connection, "maintain_history", (), MAINTENANCE_DEADLINE)
        finally:
            await self._connections[connection].close()
        dropped, deleted, failed = row
        return dropped, deleted, failed

    async def heartbeat(
        self, worker_id: str, tasks: list[str], details: dict[str, Any], busy: bool,
        *, seconds: float, at_start: bool = False,
    ) -> Heartbeat:  # fmt: skip
        """Say that the worker lives, and free what dead ones hold.

        ``seconds`` is how long the answer may take. ``at_start`` raises what no retry can fix.
        """
        connection = self._beside_jobs("heartbeat")
        values: tuple[Any, ...] = (tasks, worker_id, worker_id, tasks, json.dumps(details), busy)
        verb = "heartbeat"
        if not self.has_controls:
            verb, values = "lonely_heartbeat", values[1:]
        (row,) = await self._persist(
            connection, verb, values,
            unless=is_hopeless if at_start else lambda error: False, seconds=seconds,
        )  # fmt: skip
        if connection == "fetch":
            for name in self._connections.keys() - {"fetch"}:
                await self._connections[name].close_unused(UNUSED_AFTER)
        *answer, dead = row
        return Heartbeat._make([*answer, [(worker, int(jobs)) for worker, jobs in dead]])

    async def writing_transactions(self, among: list[str] | None = None) -> list[str]:
        """Return the open transactions that may have added jobs; given some, those of them."""
        ((open_ones,),) = await self._persist("heartbeat", "writing_transactions", (among,))
        return list(open_ones)

    async def end_worker(self, worker_id: str) -> int:
        """End a worker: what it still holds is returned; return how many jobs that were."""
        ((count,),) = await self._persist("heartbeat", "end_worker", (worker_id,))
        return int(count)

    async def return_unknown(self, worker_id: str, known: list[int]) -> int:
        """Return what the worker holds in the database without knowing of it."""
        ((count,),) = await self._persist("heartbeat", "return_unknown_jobs", (worker_id, known))
        return int(count)

    async def release_stale(self) -> int:
        """Free what has been locked for four hours by those who give no sign of life."""
        ((jobs, _),) = await self._persist("other", "release_stale_locks", ())
        return int(jobs)

    async def register_crontabs(
        self, identifiers: list[str]
    ) -> list[tuple[str, datetime, datetime | None]]:
        """Register recurring jobs; return since when each is known, and its last tick."""
        rows = await self._persist("other", "register_crontabs", (identifiers,))
        return [(identifier, since, last) for identifier, since, last in rows]

    async def add_cron_jobs(self, at: datetime, jobs: list[dict[str, Any]]) -> list[str]:
        """Add the jobs of a tick that no one has added yet; return the identifiers."""
        values = (at, json.dumps(jobs))
        rows = await self._persist("other", "add_cron_jobs", values, unless=is_of_jobs)
        return [identifier for (identifier,) in rows]

    async def now(self) -> datetime:
        """Return the time on the database's clock."""
        ((moment,),) = await self._persist("other", "now", ())
        return cast("datetime", moment)
