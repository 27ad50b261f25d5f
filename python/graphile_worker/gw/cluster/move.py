"""Move waiting jobs from one database to another, so that each is in exactly one of them.

Each round is a transaction in both databases, prepared in both before it is committed in either.
The target is prepared first and committed first: whatever was left behind by a crash tells how far
the round had come, and the next one ends it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import LiteralString

from psycopg import errors
from psycopg.sql import SQL, Literal

from graphile_worker.errors import Busy, GraphileWorkerError
from graphile_worker.gw.queue import Queue, Row
from graphile_worker.naming import quote_ident

#: Jobs without a queue that one round moves at most; of queues it moves all jobs.
MOST = 1000
#: Milliseconds that a round waits for rows that others lock.
_LOCK_TIMEOUT = 2000
_PREFIX = "graphile_worker move"
#: How the two transactions of a round end: both databases may be of one server.
_FROM, _TO = " from here", " to here"

_IDENTITY = """
    select system_identifier || '.' || oid as identity,
      pg_catalog.current_setting('max_prepared_transactions')::integer as most
    from pg_catalog.pg_control_system(), pg_catalog.pg_database
    where datname = pg_catalog.current_database()
"""
_PREPARED = """
    select gid from pg_catalog.pg_prepared_xacts
    where database = pg_catalog.current_database() and pg_catalog.starts_with(gid, %(prefix)s)
"""
_LOCK = """
    select pg_catalog.pg_try_advisory_lock(pg_catalog.hashtext('graphile_worker move')) as is_free
"""
# A queue moves as a whole, while none of its jobs runs: its jobs stay one after the other.
_PICK = """
    with free as materialized (
      select queues.id from {s}._private_job_queues as queues
      where queues.is_available
      and exists (select from {s}._private_jobs as jobs where jobs.job_queue_id = queues.id)
      order by queues.id limit 100
      for update skip locked
    ),
    queued as materialized (
      select jobs.id from {s}._private_jobs as jobs
      where jobs.job_queue_id in (select free.id from free) and jobs.locked_at is null
      order by jobs.id
      for update
    ),
    others as materialized (
      select jobs.id from {s}._private_jobs as jobs
      where jobs.job_queue_id is null and jobs.locked_at is null
      order by jobs.id limit %(most)s
      for update skip locked
    ),
    gone as (
      delete from {s}._private_jobs as jobs
      where jobs.id in (select queued.id from queued union all select others.id from others)
      returning jobs.*
    )
    select tasks.identifier, queues.queue_name, gone.payload::text, gone.priority,
      gone.run_at::text, gone.attempts, gone.max_attempts, gone.last_error, gone.created_at::text,
      gone.updated_at::text, gone.key, gone.revision, gone.flags::text
    from gone
    join {s}._private_tasks as tasks on tasks.id = gone.task_id
    left join {s}._private_job_queues as queues on queues.id = gone.job_queue_id
    order by gone.id
"""
_NAMES = """
    with tasks as (
      insert into {s}._private_tasks (identifier)
      select distinct given.name from pg_catalog.unnest(%(tasks)s::text[]) as given (name)
      order by given.name
      on conflict (identifier) do nothing
    ),
    queues as (
      insert into {s}._private_job_queues (queue_name)
      select distinct given.name from pg_catalog.unnest(%(queues)s::text[]) as given (name)
      order by given.name
      on conflict (queue_name) do nothing
    )
    select jobs.key from {s}._private_jobs as jobs where jobs.key = any (%(keys)s::text[])
"""
_PUT = """
    insert into {s}._private_jobs (
      task_id, job_queue_id, payload, priority, run_at, attempts, max_attempts, last_error,
      created_at, updated_at, key, revision, flags
    )
    select tasks.id, queues.id, %(payload)s::json, %(priority)s, %(run_at)s::timestamptz,
      %(attempts)s, %(max_attempts)s, %(last_error)s, %(created_at)s::timestamptz,
      %(updated_at)s::timestamptz, %(key)s, %(revision)s, %(flags)s::jsonb
    from {s}._private_tasks as tasks
    left join {s}._private_job_queues as queues on queues.queue_name = %(queue_name)s
    where tasks.identifier = %(identifier)s
"""
_NOTIFY = """
    select pg_catalog.pg_notify(
      'jobs:insert', '{"r":' || pg_catalog.random() || ',"count":' || %(count)s || '}'
    ) as sent
"""


@dataclass
class Moved:
    """How many jobs were moved, and how many of them without their key, which was in use there."""

    jobs: int = 0
    without_key: int = 0


class Move:
    """Moves the waiting jobs of ``source`` to ``target``: failed and scheduled ones, too."""

    def __init__(self, source: Queue, target: Queue) -> None:
        self.source, self.target = source, target
        self.moved = Moved()
        here, there = (_identity(queue) for queue in (source, target))
        if here == there:
            raise GraphileWorkerError("both are the same database: name another one with --to")
        self._prefix = f"{_PREFIX} to {there} "
        for queue in (source, target):
            if not queue.row(_LOCK)["is_free"]:
                raise Busy("another command moves jobs of one of the two databases: try again")

    def recover(self) -> None:
        """End what an earlier move has left behind when it crashed."""
        here = _prepared(self.source, _FROM)
        there = _prepared(self.target, _TO)
        if others := sorted(name for name in here if not name.startswith(self._prefix)):
            raise GraphileWorkerError(
                f"a move to another database has not ended ({others[0]!r} is prepared): run that"
                " command again first"
            )
        for name in sorted(name for name in there if name.startswith(self._prefix)):
            how: LiteralString = "commit prepared" if name in here else "rollback prepared"
            _finish(self.target, how, name + _TO)
        for name in sorted(here):
            _finish(self.source, "commit prepared", name + _FROM)

    def round(self) -> int:
        """Move some jobs; return how many. Others see each of them in one of the two databases.

        None are moved while others lock them.
        """
        name = f"{self._prefix}{uuid.uuid4().hex}"
        limits = f"lock_timeout = {_LOCK_TIMEOUT}; set local statement_timeout"
        begin = f"begin; set local {limits} = {round(self.source.timeout * 1000)}".encode()
        try:
            self.source.conn.execute(begin)
            jobs = self.source.rows(_PICK, most=MOST)
            if not jobs:
                return 0
            self.target.conn.execute(begin)
            without_key = _put(self.target, jobs)
            _finish(self.target, "prepare transaction", name + _TO)
            _finish(self.source, "prepare transaction", name + _FROM)
        except (errors.LockNotAvailable, errors.UniqueViolation):
            return 0
        finally:
            for queue in (self.source, self.target):
                if not queue.conn.closed:
                    queue.conn.rollback()
        _finish(self.target, "commit prepared", name + _TO)
        _finish(self.source, "commit prepared", name + _FROM)
        self.target.rows(_NOTIFY, count=len(jobs))
        self.moved.jobs += len(jobs)
        self.moved.without_key += without_key
        return len(jobs)


def _identity(queue: Queue) -> str:
    row = queue.row(_IDENTITY)
    if row["most"] == 0:
        raise GraphileWorkerError(
            "the server prepares no transactions: set max_prepared_transactions to 10 or more and"
            " restart it"
        )
    identity: str = row["identity"]
    return identity


def _prepared(queue: Queue, end: str) -> set[str]:
    found = (row["gid"] for row in queue.rows(_PREPARED, prefix=_PREFIX))
    return {gid.removesuffix(end) for gid in found if gid.endswith(end)}


def _put(queue: Queue, jobs: list[Row]) -> int:
    """Insert the jobs; return how many have lost their key, since another job has it."""
    used = {
        row["key"]
        for row in queue.rows(
            _NAMES,
            tasks=[job["identifier"] for job in jobs],
            queues=[job["queue_name"] for job in jobs if job["queue_name"] is not None],
            keys=[job["key"] for job in jobs if job["key"] is not None],
        )
    }
    without_key = [job for job in jobs if job["key"] in used]
    for job in without_key:
        job["key"] = None
    text = _PUT.replace("{s}", quote_ident(queue.schema).replace("%", "%%"))
    with queue.conn.cursor() as cursor:
        cursor.executemany(text.encode(), jobs)
    return len(without_key)


def _finish(queue: Queue, how: LiteralString, gid: str) -> None:
    queue.conn.execute(SQL(how + " {}").format(Literal(gid)))
