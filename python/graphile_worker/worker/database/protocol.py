"""The worker's side of the database: one statement for each step in a job's life."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Container, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from graphile_worker.cli.dsn import without_driver
from graphile_worker.client import verbs
from graphile_worker.client.drivers import arun, translated
from graphile_worker.client.statements import in_schema
from graphile_worker.errors import (
    AccessDenied,
    GraphileWorkerError,
    InvalidConnection,
    SchemaError,
    UntrustedOwner,
)
from graphile_worker.log import logger
from graphile_worker.ownership import OWNERS, check_owners
from graphile_worker.worker.database.backoff import Backoff
from graphile_worker.worker.database.connections import (
    DEADLINE,
    DirectLink,
    Link,
    NotConnectedError,
    Row,
)

# By function, so that errors name it. Payloads are text, so that one which cannot be decoded fails
# its own job and not the whole fetch; those larger than the first parameter are left for
# get_payload. A stored value may be a hundredth of its text, so only tiny ones are not measured. A
# heartbeat recovers dead workers' jobs as well: one statement, so that an idle worker sends few.
_TEXTS = {
    "get_jobs": """select id, task_identifier,
  case when pg_column_size(payload) <= 128 or octet_length(payload::text) <= %s
    then payload::text end,
  queue_name, priority, run_at, attempts, max_attempts, left(last_error, 10000),
  created_at, updated_at, key, locked_at, locked_by, revision, flags::text,
  current_setting('graphile_worker.more', true)
from {s}.get_jobs(%s, %s, %s, %s)""",
    "get_payload": "select {s}.get_payload(%s, %s)::text",
    "schema_revision": "select breaking_revision from {s}.schema_revision()",
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
    "know_crontabs": """select identifier,
  greatest(known_since, timestamptz '0001-01-02 00:00+00'),
  case when last_execution is not null then least(
    greatest(last_execution, timestamptz '0001-01-02 00:00+00'),
    timestamptz '9999-12-30 00:00+00'
  ) end
from {s}.know_crontabs(%s)""",
    "add_cron_jobs": "select {s}.add_cron_jobs(%s, %s)",
    "now": "select pg_catalog.clock_timestamp()",
}

#: What a connection is made with where the connection string does not say otherwise: a peer that
#: vanished is noticed within half a minute, and no setting of the role decides how text is read.
_CONNECTION = {
    "client_encoding": "utf8",
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30000,
}
_MIXED_UP = "the worker's prepared statements are mixed up by a pooler: pass prepare=False"
#: The code of get_jobs for a worker that has ended or was presumed dead.
WORKER_ENDED = "GWBWE"
#: Bytes of payloads that one fetch brings, in about.
FETCH_BYTES = 32 << 20
LEAST_PAYLOAD, MOST_PAYLOAD = 1 << 10, 256 << 10


def is_hopeless(error: BaseException) -> bool:
    """Whether no time heals the error: the schema or rights are missing, the login is refused."""
    if isinstance(error, SchemaError | AccessDenied | InvalidConnection | UntrustedOwner):
        return True
    code = getattr(error, "sqlstate", None) or ""
    # A login that is refused, and a database that does not exist.
    return isinstance(error, psycopg.Error) and (code[:2] == "28" or code == "3D000")


def is_outage(error: BaseException) -> bool:
    """Whether the database is away, or busy, whatever it is told."""
    if not isinstance(error, psycopg.Error):
        return isinstance(error, OSError | SchemaError | AccessDenied | InvalidConnection)
    code = error.sqlstate
    if code is None or isinstance(error, NotConnectedError):
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    # Connection exceptions, rollbacks, lack of resources, operator intervention, a standby.
    return code[:2] in ("08", "40", "53", "57", "58") or code in ("25006", "26000", "0A000")


def is_uncertain(error: BaseException) -> bool:
    """Whether the statement may have been committed although its answer did not arrive."""
    if isinstance(error, NotConnectedError | GraphileWorkerError):
        return False
    severity = error.diag.severity_nonlocalized if isinstance(error, psycopg.Error) else None
    return severity != "ERROR"  # which undoes the statement


def conninfo(dsn: str) -> str:
    """Return a connection string with this module's defaults for what it does not say."""
    given: dict[str, Any] = {**_CONNECTION, **conninfo_to_dict(without_driver(dsn))}
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

    ``take`` is tried once, since its outcome may be uncertain. ``finish``, ``fail`` and
    ``give_back`` are repeated while the database is away, and raise what it says of these jobs.
    Everything else is repeated until it succeeds.
    """

    def __init__(
        self, dsn: str, *, schema: str, prepare: bool = True, trusted: Iterable[str] = (),
        on_error: Callable[[BaseException], None] = lambda error: None,
    ) -> None:  # fmt: skip
        self._dsn, self._schema, self._prepare = conninfo(dsn), schema, prepare
        self._trusted, self._on_error = tuple(trusted), on_error
        self._links: dict[str, Link] = {
            "take": DirectLink(self._connect, prepare=prepare),
            "tell": DirectLink(self._connect, prepare=prepare),
            "beat": Link(self._connect),
            # For what may take long: no heartbeat and no result waits for it.
            "more": Link(self._connect),
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
            async with asyncio.timeout(DEADLINE):
                cursor = await conn.execute(OWNERS, [self._schema])
                check_owners(await cursor.fetchall(), self._schema, self._trusted)
                await arun(conn, verbs.check(self._schema))
        except psycopg.errors.DuplicatePreparedStatement as error:
            raise InvalidConnection(_MIXED_UP) from error
        except TimeoutError as error:
            raise psycopg.OperationalError(
                f"the server does not answer: nothing came within {DEADLINE:g} seconds"
            ) from error

    async def close(self) -> None:
        """Close every connection."""
        for link in self._links.values():
            await link.close()

    async def _rows(
        self, link: str, verb: str, values: Sequence[Any], seconds: float = DEADLINE
    ) -> list[Row]:
        """Run a statement once; errors that have a meaning of ours are ours."""
        statement = self._statements[verb]
        try:
            return await self._links[link].rows(statement.encoded, values, seconds)
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
        self, link: str, verb: str, values: Sequence[Any],
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
                    await self._links[link].ready(seconds)
                    async with self.taking:
                        rows = await self._rows(link, verb, again(), seconds)
                else:
                    rows = await self._rows(link, verb, values, seconds)
            except Exception as error:
                if unless(error):
                    raise
                await asyncio.sleep(backoff.failed(f"{verb} failed", error))
            else:
                if backoff.failures:
                    logger.info("%s succeeded after %d failures", verb, backoff.failures)
                return rows

    async def take(
        self, worker_id: str, count: int, tasks: list[str], forbidden: list[str] | None
    ) -> tuple[list[Row], bool]:
        """Take up to so many jobs, once; see ``is_uncertain`` for errors.

        Return them, and whether there may be more. Large payloads are None: see ``payload``.
        """
        largest = min(MOST_PAYLOAD, max(LEAST_PAYLOAD, FETCH_BYTES // count))
        rows = await self._rows("take", "get_jobs", (largest, worker_id, count, tasks, forbidden))
        return rows, len(rows) == count or (bool(rows) and rows[0][-1] == "true")

    async def payload(self, worker_id: str, job_id: int) -> str | None:
        """Return the payload of a job; None: the worker does not hold it any more."""
        ((text,),) = await self._persist("more", "get_payload", (worker_id, job_id))
        return None if text is None else str(text)

    async def breaking_revision(self) -> int:
        """Return the highest revision of Node's schema that earlier workers do not run on."""
        ((revision,),) = await self._persist("beat", "schema_revision", ())
        return int(revision or 0)

    async def finish(self, worker_id: str, ids: list[int]) -> list[int]:
        """Delete jobs that are done; return those that were not the worker's any more."""
        # Written here: the driver looks at each number on its own.
        array = f"{{{','.join(map(str, ids))}}}"
        rows = await self._persist("tell", "finish_jobs", (worker_id, array), unless=_of_jobs)
        return [job for (job,) in rows]

    async def fail(
        self, worker_id: str, failures: list[dict[str, Any]], anew: Container[int] = ()
    ) -> list[int]:
        """Put failed jobs back; return those that were not the worker's any more.

        What may have been written is not repeated of jobs that the worker has taken anew since.
        """

        def values() -> tuple[Any, ...]:
            return worker_id, json.dumps([each for each in failures if each["id"] not in anew])

        rows = await self._persist("tell", "fail_jobs", values(), values, unless=_of_jobs)
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

        await self._persist("tell", "return_jobs", values(), values, unless=_of_jobs)

    async def beat(
        self, worker_id: str, tasks: list[str], details: dict[str, Any], busy: bool,
        *, seconds: float, at_start: bool = False,
    ) -> Beat:  # fmt: skip
        """Say that the worker lives, and free what dead ones hold.

        ``seconds`` is how long the answer may take. ``at_start`` raises what no time heals.
        """
        (row,) = await self._persist(
            "beat", "heartbeat", (worker_id, worker_id, tasks, json.dumps(details), busy),
            unless=is_hopeless if at_start else lambda error: False, seconds=seconds,
        )  # fmt: skip
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
        ((jobs, _),) = await self._persist("more", "release_stale_locks", ())
        return int(jobs)

    async def know_crontabs(
        self, identifiers: list[str]
    ) -> list[tuple[str, datetime, datetime | None]]:
        """Register recurring jobs; return since when each is known, and its last tick."""
        rows = await self._persist("more", "know_crontabs", (identifiers,))
        return [(identifier, since, last) for identifier, since, last in rows]

    async def add_cron_jobs(self, at: datetime, jobs: list[dict[str, Any]]) -> list[str]:
        """Add the jobs of a tick that nobody has added yet; return the identifiers."""
        rows = await self._persist("more", "add_cron_jobs", (at, json.dumps(jobs)), unless=_of_jobs)
        return [identifier for (identifier,) in rows]

    async def now(self) -> datetime:
        """Return the time on the database's clock."""
        ((now,),) = await self._persist("more", "now", ())
        moment: datetime = now
        return moment


def _of_jobs(error: BaseException) -> bool:
    """Whether the database refuses a statement for what it says of its jobs."""
    return not is_outage(error)
