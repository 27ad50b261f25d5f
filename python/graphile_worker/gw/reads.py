"""What the pages read: counts that stay quick, lists page by page, errors in groups.

Everything is read through the views, so that a role of the level observe sees all pages.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg

from graphile_worker.errors import GraphileWorkerError
from graphile_worker.gw.jobs import STATE, STATES
from graphile_worker.gw.queue import Queue, Row
from graphile_worker.log import logger, shown

T = TypeVar("T")

PAGE = 50
#: Jobs that one statement of a search looks at, and for how long a search goes on.
WINDOW, SEARCH_SECONDS = 20_000, 0.25
#: How long an exact count may take; a sample is taken after that.
COUNT_MS = 60
#: What took a second is read again after so many seconds.
REST = 20
MOST_KEPT = 100
#: So many of what takes long are read at the same time.
AT_ONCE = 2

_WHERE = f"""
    where (%(states)s::text[] is null or {STATE} = any (%(states)s::text[]))
    and (%(task)s::text is null or task_identifier = %(task)s::text)
    and (%(queue)s::text is null or queue_name = %(queue)s::text)
    and (%(key)s::text is null or pg_catalog.strpos(key, %(key)s::text) > 0)
    and (%(worker)s::text is null or locked_by = %(worker)s::text)
    and (%(error)s::text is null
      or pg_catalog.strpos(pg_catalog.lower(last_error), pg_catalog.lower(%(error)s::text)) > 0)
"""
_SEARCH = f"""
    with seen as materialized (
      select * from {{s}}.jobs
      where %(before)s::bigint is null or id < %(before)s::bigint
      order by id desc limit %(window)s
    ),
    found as (
      select *, {STATE} as state from seen {_WHERE} order by id desc limit %(limit)s
    )
    select found.*, ends.oldest, ends.jobs
    from (select pg_catalog.min(id) as oldest, pg_catalog.count(*) as jobs from seen) as ends
    left join found on true
    order by found.id desc
"""
_COUNT = f"select pg_catalog.count(*) as jobs from {{s}}.jobs {_WHERE}"
# Says first what is quick to tell of most rows.
_COUNT_RARE = _COUNT.replace(
    "where", "where (locked_at is not null or attempts >= max_attempts) and", 1
)
_SAMPLED = """
    select coalesce(pg_catalog.sum(weight), 0)::bigint as jobs,
      coalesce(pg_catalog.max(weight), 1) > 1 as is_estimate
    from {s}.job_sample
    where (%(states)s::text[] is null or state = any (%(states)s::text[]))
    and (%(task)s::text is null or task_identifier = %(task)s::text)
    and (%(queue)s::text is null or queue_name = %(queue)s::text)
"""
_BY = """
    select {column} as name, {states}, pg_catalog.max(weight) > 1 as is_estimate
    from {s}.job_sample where {column} is not null
    group by {column} order by pg_catalog.sum(weight) desc, name limit %(most)s
"""
_SUMS = ", ".join(
    f"coalesce(pg_catalog.sum(weight) filter (where state = '{state}'), 0)::bigint as {state}"
    for state in STATES
)
_TOTAL = (
    f"select {_SUMS}, coalesce(pg_catalog.max(weight), 1) > 1 as is_estimate from {{s}}.job_sample"
)
# Rare among millions, and so not to be estimated.
_RARE = """
    select pg_catalog.count(*) filter (where locked_at is not null) as running,
      pg_catalog.count(*) filter (where locked_at is null) as failed
    from {s}.jobs where locked_at is not null or attempts >= max_attempts
"""
_OLDEST = """
    select coalesce(extract(epoch from pg_catalog.now() - greatest(
      pg_catalog.min(run_at), timestamptz '0001-01-01 00:00+00'
    )), 0)::float8 as seconds
    from {s}.next_jobs where run_at <= pg_catalog.now()
"""
# One group an error: its headline (see below), with numbers left out.
_ERROR = """pg_catalog.regexp_replace(
      pg_catalog.left(
        case when pg_catalog.starts_with(last_error, 'Traceback')
          then pg_catalog.substring(last_error, '([^\\n]+)\\s*$')
          else pg_catalog.split_part(last_error, E'\\n', 1)
        end, 200
      ), '[0-9]+', 'N', 'g'
    )"""
_GROUPS = f"""
    select task_identifier, {_ERROR} as error, pg_catalog.count(*) as jobs,
      pg_catalog.count(*) filter (where attempts >= max_attempts) as failed,
      pg_catalog.max(updated_at) as last_at,
      (pg_catalog.array_agg(id order by updated_at desc, id desc))[1] as id
    from {{s}}.jobs
    where last_error is not null and locked_at is null
    and (%(failed_only)s is false or attempts >= max_attempts)
    group by 1, 2 order by last_at desc, jobs desc, 1, 2 limit %(most)s
"""
_COUNTED = """
    select n_tup_ins as added, n_tup_del as ended, n_tup_upd as changed
    from pg_catalog.pg_stat_user_tables
    where schemaname = %(schema)s and relname = '_private_jobs'
"""
# Of the jobs that completed in the last five minutes at the first attempt, where history is kept.
_WAITED = """
    select pg_catalog.count(*) as jobs,
      pg_catalog.percentile_cont(array[0.5, 0.95]) within group (
        order by extract(epoch from started_at - greatest(run_at, created_at))::float8
      ) as waited
    from (
      select * from {s}.job_history
      where finished_at > pg_catalog.now() - interval '5 minutes'
      and state = 'completed' and attempts = 1
      order by finished_at desc limit 5000
    ) as recent
"""


class Cache:
    """Reads what takes long in the background, and keeps it for as long as that is worth.

    ``opened`` connects to the queue. A caller waits for at most ``wait`` seconds.
    """

    def __init__(
        self, opened: Callable[[], AbstractContextManager[Queue]], wait: float = 0
    ) -> None:
        self._opened, self._wait = opened, wait
        self._kept: dict[str, tuple[float, Any]] = {}
        self._reading: dict[str, threading.Event] = {}
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        #: How often something else was read than before.
        self.changes = 0

    def get(self, name: str, read: Callable[[Queue], T]) -> T | None:
        """Return what was read last; None: it is being read, and not known yet."""
        until, _ = self._kept.get(name, (0.0, None))
        if time.monotonic() >= until:
            done = self._reading.get(name)
            if done is None:
                done = self._reading[name] = threading.Event()
                # A daemon: who stops the program does not wait for it.
                arguments = (name, read, done)
                threading.Thread(target=self._read, args=arguments, daemon=True).start()
            done.wait(self._wait)
        _, value = self._kept.get(name, (0.0, None))
        return value  # type: ignore[no-any-return]

    def _read(self, name: str, read: Callable[[Queue], Any], done: threading.Event) -> None:
        try:
            with self._turns, self._opened() as queue, queue.limited(read_only=True):
                started = time.monotonic()
                value = read(queue)
                ended = time.monotonic()
            if len(self._kept) >= MOST_KEPT:  # users choose the filters of counts
                self._kept.clear()
            self.changes += value != self._kept.get(name, (0.0, None))[1]
            self._kept[name] = (ended + REST * (ended - started), value)
        except (psycopg.Error, GraphileWorkerError) as error:
            logger.warning("%s could not be read: %s", name, shown(error))
        finally:
            self._reading.pop(name, None)
            done.set()

    def clear(self) -> None:
        """Forget everything: jobs were changed."""
        self._kept.clear()


@dataclass(frozen=True)
class Filters:
    """Which jobs a list shows."""

    states: list[str] = field(default_factory=list)
    task: str | None = None
    queue: str | None = None
    key: str | None = None
    worker: str | None = None
    error: str | None = None

    def values(self) -> dict[str, Any]:
        """Return them as the queries take them."""
        return {**self.__dict__, "states": self.states or None}


@dataclass(frozen=True)
class Found:
    """A page of jobs; ``before`` continues it, and is None at the end."""

    jobs: list[Row]
    before: int | None
    #: Whether the search stopped early: it looked down to ``before`` only.
    is_partial: bool


@dataclass(frozen=True)
class Count:
    """How many jobs there are; None: it is not known without reading them all."""

    jobs: int | None
    is_estimate: bool = False


def headline(error: str | None) -> str:
    """Return the line of an error that says most: the last one of a traceback, else the first."""
    lines = (error or "").strip().splitlines() or [""]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def search(queue: Queue, filters: Filters, before: int | None) -> Found:
    """Return the next page of jobs, the latest first, in about the time a search may take."""
    found: list[Row] = []
    until = time.monotonic() + SEARCH_SECONDS
    while True:
        rows = queue.rows(
            _SEARCH, before=before, window=WINDOW, limit=PAGE - len(found), **filters.values()
        )
        found += [row for row in rows if row["id"] is not None]
        if len(found) == PAGE:
            return Found(found, found[-1]["id"], False)
        if rows[0]["jobs"] < WINDOW:
            return Found(found, None, False)
        before = rows[0]["oldest"]
        if time.monotonic() > until:
            return Found(found, before, True)


def count(queue: Queue, filters: Filters, cache: Cache) -> Count:
    """Count the jobs, all if that is quick, else by a sample."""
    counted = queue.row_within(COUNT_MS, _COUNT, **filters.values())
    if counted is not None:
        return Count(counted["jobs"])
    if filters.states and set(filters.states) <= {"running", "failed"}:
        # Rare among millions, and so badly estimated.
        name, values = f"count {filters}", filters.values()
        row = cache.get(name, lambda queue: queue.row(_COUNT_RARE, **values))
        if row is not None:
            return Count(row["jobs"])
    if filters.key or filters.worker or filters.error:
        return Count(None)
    row = queue.row(_SAMPLED, **filters.values())
    return Count(row["jobs"], row["is_estimate"])


def totals(queue: Queue, cache: Cache) -> Row:
    """Count the jobs by state; those that run or failed one by one, as soon as that is done."""
    row = queue.row(_TOTAL)
    row["is_rare_estimate"] = row["is_estimate"]
    if row["is_estimate"]:
        counted = cache.get("rare", lambda queue: queue.row(_RARE))
        if counted is not None:
            row |= {**counted, "is_rare_estimate": False}
    return {**row, "oldest_due_seconds": queue.row(_OLDEST)["seconds"]}


def by(queue: Queue, column: str, most: int = 30) -> list[Row]:
    """Count the jobs by state and ``task_identifier`` or ``queue_name``."""
    text = _BY.replace("{column}", column).replace("{states}", _SUMS)
    return queue.rows(text, most=most)


def errors(
    queue: Queue, cache: Cache, *, failed_only: bool = False, most: int = 10
) -> list[Row] | None:
    """Return errors of jobs that wait to be retried or failed, in groups, the latest first.

    None: there are many jobs, and it is not known yet.
    """
    values = {"failed_only": failed_only, "most": most}
    found = queue.rows_within(COUNT_MS, _GROUPS, **values)
    if found is not None:
        return found
    name = f"errors {failed_only} {most}"
    return cache.get(name, lambda queue: queue.rows(_GROUPS, **values))


def waited(queue: Queue) -> Row:
    """Return for how long jobs waited of late, of which history is kept."""
    return queue.row(_WAITED)


def counted(queue: Queue) -> Mapping[str, int]:
    """Return how many jobs were added, ended and changed, as the server counts."""
    rows = queue.rows(_COUNTED, schema=queue.schema)
    return rows[0] if rows else {"added": 0, "ended": 0, "changed": 0}
