"""The worker's side of the database: one statement for each step in a job's life."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Container, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from graphile_worker import verbs
from graphile_worker.drivers import arun, translated, without_driver
from graphile_worker.errors import InvalidConnection
from graphile_worker.statements import in_schema
from graphile_worker.worker.link import DirectLink, Link, Row
from graphile_worker.worker.waiting import Backoff

logger = logging.getLogger("graphile_worker")

# By function, so that errors name it. Payloads are text, so that one which cannot be decoded fails
# its own job and not the whole take; Python knows no time before the year 1. A heartbeat sweeps as
# well: one statement, so that an idle worker sends few.
_TEXTS = {
    "get_jobs": """select id, task_identifier, payload::text, queue_name, priority,
  greatest(run_at, timestamptz '0001-01-02 00:00+00'), attempts, max_attempts, last_error,
  created_at, updated_at, key, locked_at, locked_by, revision, flags,
  current_setting('graphile_worker.more', true)
from {s}.get_jobs(%s, %s, %s, %s)""",
    "finish_jobs": "select job_id from {s}.finish_jobs(%s, %s::text::bigint[]) where not done",
    "fail_jobs": "select job_id from {s}.fail_jobs(%s, %s) where not done",
    "return_jobs": """select job_id, done
from {s}.return_jobs(%s, %s, coalesce(%s::timestamptz, now() + %s::interval))""",
    "heartbeat": """select beat.is_known, extract(epoch from beat.dead_after)::float8,
  extract(epoch from beat.next_job_in)::float8, beat.is_due,
  coalesce(current_setting('graphile_worker.notify', true) = 'idle', false),
  array(
    select array[dead.dead_worker_id, dead.released_jobs::text]
    from {s}.release_dead_workers(%s) as dead
  )
from {s}.heartbeat(%s, %s, %s, %s) as beat""",
    "writing_transactions": "select {s}.writing_transactions(%s)",
    "stop_heartbeat": "select {s}.stop_heartbeat(%s)",
    "return_unknown_jobs": "select {s}.return_unknown_jobs(%s, %s)",
    "release_stale_locks": "select released_jobs, released_queues from {s}.release_stale_locks()",
    "know_crontabs": "select identifier, known_since, last_execution from {s}.know_crontabs(%s)",
    "add_cron_jobs": "select {s}.add_cron_jobs(%s, %s)",
    "now": "select pg_catalog.clock_timestamp()",
}

_KEEPALIVES = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30000,
}
_MIXED_UP = "the worker's prepared statements are mixed up by a pooler: pass prepare=False"
#: A statement that was refused for these reasons has changed nothing, and may succeed if repeated.
_ROLLED_BACK = {"40001", "40P01", "55P03", "57014", "25006", "26000"}


def is_passing(error: BaseException) -> bool:
    """Whether the error is one that time heals: a lost connection, a restart, a deadlock."""
    if not isinstance(error, psycopg.Error):
        return isinstance(error, OSError)
    code = error.sqlstate
    if code is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    # Connection exceptions, lack of resources, operator intervention.
    return code in _ROLLED_BACK or code[:2] in ("08", "53", "57")


def is_uncertain(error: BaseException) -> bool:
    """Whether the statement may have been committed although its answer did not arrive."""
    return not (isinstance(error, psycopg.Error) and error.sqlstate in _ROLLED_BACK)


def conninfo(dsn: str) -> str:
    """Return a connection string that notices within half a minute that its peer vanished."""
    given: dict[str, Any] = {**_KEEPALIVES, **conninfo_to_dict(without_driver(dsn))}
    return make_conninfo(**given)


class Beat(NamedTuple):
    """What the database answers to a heartbeat; times are seconds."""

    #: Whether the worker was known to live.
    is_known: bool
    #: The silence after which it is presumed dead.
    dead_after: float
    #: Until the next job of the future is due; None: there is none.
    next_job_in: float | None
    #: Whether a job of any task is due.
    is_due: bool
    #: Whether only workers that sleep are notified.
    only_idle: bool
    #: The ids of dead workers, with the numbers of their jobs.
    dead: list[tuple[str, int]]


class Protocol:
    """The functions of the extension that a worker calls.

    ``take`` is tried once, since its outcome may be uncertain; everything else goes on until it
    holds, however long the database is away, and raises only what no time heals.
    """

    def __init__(
        self, dsn: str, *, schema: str, prepare: bool = True,
        on_error: Callable[[BaseException], None] = lambda error: None,
    ) -> None:  # fmt: skip
        self._dsn, self._schema, self._prepare = conninfo(dsn), schema, prepare
        self._on_error = on_error
        self._links: dict[str, Link] = {
            "take": DirectLink(self._connect, prepare=prepare),
            "tell": DirectLink(self._connect, prepare=prepare),
            "beat": Link(self._connect),
        }
        #: Held from a take until its jobs are known, and while it is said again how jobs ended.
        self.taking = asyncio.Lock()
        self._statements = {
            verb: in_schema(verb, "work", text, schema) for verb, text in _TEXTS.items()
        }

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(
            self._dsn,
            autocommit=True,
            prepare_threshold=0 if self._prepare else None,
            fallback_application_name="graphile_worker",
        )

    async def check(self) -> None:
        """Raise a SchemaError unless the schema has what is called here."""
        conn = await self._links["beat"].connection()
        try:
            await arun(conn, verbs.check(self._schema))
        except psycopg.errors.DuplicatePreparedStatement as error:
            raise InvalidConnection(_MIXED_UP) from error

    async def close(self) -> None:
        """Close every connection."""
        for link in self._links.values():
            await link.close()

    async def _rows(self, link: str, verb: str, values: Sequence[Any]) -> list[Row]:
        """Run a statement once; errors that no time heals are ours."""
        statement = self._statements[verb]
        try:
            return await self._links[link].rows(statement.encoded, values)
        except Exception as error:
            if is_passing(error):
                self._on_error(error)
                raise
            if isinstance(error, psycopg.errors.DuplicatePreparedStatement):
                raise InvalidConnection(_MIXED_UP) from error
            raise (translated(error, statement) or error) from error

    async def _persist(
        self, link: str, verb: str, values: Sequence[Any],
        again: Callable[[], Sequence[Any]] | None = None,
    ) -> list[Row]:  # fmt: skip
        """Run a statement until it holds; ``again`` gives a repeat its values, if they change."""
        backoff = Backoff()
        while True:
            try:
                if backoff.failures and again is not None:
                    await self._links[link].ready()
                    async with self.taking:
                        rows = await self._rows(link, verb, again())
                else:
                    rows = await self._rows(link, verb, values)
            except Exception as error:
                if not is_passing(error):
                    raise
                await asyncio.sleep(backoff.failed(f"{verb} failed", error))
            else:
                if backoff.failures:
                    logger.info("%s succeeded after %d failures", verb, backoff.failures)
                return rows

    async def take(
        self, worker_id: str, count: int, tasks: list[str], forbidden: list[str] | None
    ) -> tuple[list[Row], bool]:
        """Take up to so many jobs, once; see ``is_passing`` and ``is_uncertain`` for errors.

        Return them, and whether there may be more.
        """
        rows = await self._rows("take", "get_jobs", (worker_id, count, tasks, forbidden))
        return rows, len(rows) == count or (bool(rows) and rows[0][-1] == "true")

    async def finish(self, worker_id: str, ids: list[int]) -> list[int]:
        """Delete jobs that are done; return those that were not the worker's any more."""
        # Written here: the driver looks at each number on its own.
        array = f"{{{','.join(map(str, ids))}}}"
        rows = await self._persist("tell", "finish_jobs", (worker_id, array))
        return [job for (job,) in rows]

    async def fail(
        self, worker_id: str, failures: list[dict[str, Any]], anew: Container[int] = ()
    ) -> list[int]:
        """Put failed jobs back; return those that were not the worker's any more.

        What may have been written is not repeated of jobs that the worker has taken anew since.
        """

        def values() -> tuple[Any, ...]:
            return worker_id, json.dumps([each for each in failures if each["id"] not in anew])

        rows = await self._persist("tell", "fail_jobs", values(), again=values)
        return [job for (job,) in rows]

    async def give_back(
        self, worker_id: str, ids: list[int], when: datetime | timedelta | None = None,
        anew: Container[int] = (),
    ) -> None:  # fmt: skip
        """Give back jobs without using up the attempt; they wait until ``when``, if given.

        ``anew`` is as for ``fail``.
        """
        at = when if isinstance(when, datetime) else None
        delay = when if isinstance(when, timedelta) else None

        def values() -> tuple[Any, ...]:
            return worker_id, [job_id for job_id in ids if job_id not in anew], at, delay

        await self._persist("tell", "return_jobs", values(), again=values)

    async def beat(
        self, worker_id: str, tasks: list[str], details: dict[str, Any], busy: bool
    ) -> Beat:
        """Say that the worker lives, and free what dead ones hold."""
        (row,) = await self._persist(
            "beat", "heartbeat", (worker_id, worker_id, tasks, json.dumps(details), busy)
        )
        *answer, dead = row
        return Beat._make([*answer, [(worker, int(jobs)) for worker, jobs in dead]])

    async def writers(self, among: list[str] | None = None) -> list[str]:
        """Return the open transactions that may have added jobs; given some, those of them."""
        ((open_ones,),) = await self._persist("beat", "writing_transactions", (among,))
        return list(open_ones)

    async def stop(self, worker_id: str) -> int:
        """End a worker: what it still holds is given back; return how many jobs that were."""
        ((count,),) = await self._persist("beat", "stop_heartbeat", (worker_id,))
        return int(count)

    async def return_unknown(self, worker_id: str, known: list[int]) -> int:
        """Give back what the worker holds in the database without knowing of it."""
        ((count,),) = await self._persist("beat", "return_unknown_jobs", (worker_id, known))
        return int(count)

    async def release_stale(self) -> int:
        """Free what has been locked for four hours by those who give no sign of life."""
        ((jobs, _),) = await self._persist("beat", "release_stale_locks", ())
        return int(jobs)

    async def know_crontabs(
        self, identifiers: list[str]
    ) -> list[tuple[str, datetime, datetime | None]]:
        """Register recurring jobs; return since when each is known, and its last tick."""
        rows = await self._persist("beat", "know_crontabs", (identifiers,))
        return [(identifier, since, last) for identifier, since, last in rows]

    async def add_cron_jobs(self, at: datetime, jobs: list[dict[str, Any]]) -> list[str]:
        """Add the jobs of a tick that nobody has added yet; return the identifiers."""
        rows = await self._persist("beat", "add_cron_jobs", (at, json.dumps(jobs)))
        return [identifier for (identifier,) in rows]

    async def now(self) -> datetime:
        """Return the time on the database's clock."""
        ((now,),) = await self._persist("beat", "now", ())
        moment: datetime = now
        return moment
