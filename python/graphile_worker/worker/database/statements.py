"""The SQL that a worker sends, and what the database returns."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from graphile_worker.worker.database.connections import Row

# By function, so that errors name it. Payloads are text, so that one which cannot be decoded fails
# its own job and not the whole fetch; those larger than the first parameter are left for
# get_payload. A stored value may be a hundredth of its text, so only tiny ones are not measured. A
# heartbeat recovers dead workers' jobs as well: one statement, so that an idle worker sends few.
_JOB = """select id, task_identifier,
  case when pg_column_size(payload) <= 128 or octet_length(payload::text) <= %s
    then payload::text end,
  queue_name, priority, run_at, attempts, max_attempts, left(last_error, 10000),
  created_at, updated_at, key, locked_at, locked_by, revision, flags::text,
"""
_FETCHED = "from (values (1)) as one left join {s}.get_jobs(%s, %s, %s, %s) as jobs on true"
_HEARTBEAT = """select beat.is_known, extract(epoch from beat.dead_after)::float8,
  extract(epoch from beat.next_job_in)::float8, beat.is_due,
  coalesce(current_setting('graphile_worker.notify', true), '') in ('', 'auto', 'idle'),
  {fellows}, extract(epoch from pg_postmaster_start_time())::float8,
  array(
    select array[dead.dead_worker_id, dead.released_jobs::text]
    from {s}.recover_dead_workers(%s) as dead
  )
from {s}.heartbeat(%s, %s, %s, %s) as beat"""
TEXTS = {
    "get_jobs": f"""{_JOB}  current_setting('graphile_worker.more', true)
{_FETCHED}""",
    # Of equal notifications one is sent.
    "get_jobs_and_tell": f"""{_JOB}  case
    when count(id) over () between 1 and %s - 1
      and coalesce(current_setting('graphile_worker.more', true), '') = ''
    then pg_notify('jobs:claimed', %s)::text
    else current_setting('graphile_worker.more', true)
  end
{_FETCHED}""",
    "get_payload": "select {s}.get_payload(%s, %s)::text",
    "schema_revision": "select breaking_revision from {s}.schema_revision()",
    "finish_jobs": "select job_id from {s}.finish_jobs(%s, %s::text::bigint[]) where not done",
    "finish_jobs_with_results": """select job_id, done
from {s}.finish_jobs_with_results(
  %s, %s::text::bigint[], %s::text[]::json[], %s::text::float8[], %s::text[])
where done is not true""",
    "report_progress": """select j.id from rows from (
  unnest(%s::bigint[]), unnest(%s::real[]), unnest(%s::text[])) as j (id, progress, message),
  {s}.report_progress(%s, j.id, j.progress, j.message) as is_held""",
    "maintain_history": """select dropped_partitions, deleted_rows, deleted_failed_jobs
from {s}.maintain_history()""",
    "fail_jobs": "select job_id from {s}.fail_jobs(%s, %s) where not done",
    "return_jobs": """select job_id, done
from {s}.return_jobs(%s, %s, coalesce(%s::timestamptz, now() + %s::interval))""",
    "return_and_pause": """select {s}.return_and_pause(
  %s, %s, %s, coalesce(%s::timestamptz, clock_timestamp() + %s::interval), %s)""",
    "review_jobs": "select job_id, verdict, reason, requested_by from {s}.review_jobs(%s, %s)",
    "run_schedules": """select runs::text, extract(epoch from next_run_in)::float8
from {s}.run_schedules()""",
    "heartbeat": _HEARTBEAT.replace("{fellows}", "{s}.count_idle_workers(%s)"),
    # On an older schema.
    "lonely_heartbeat": _HEARTBEAT.replace("{fellows}", "1"),
    "writing_transactions": "select {s}.writing_transactions(%s)",
    "end_worker": "select {s}.end_worker(%s)",
    "return_unknown_jobs": "select {s}.return_unknown_jobs(%s, %s)",
    "release_stale_locks": "select released_jobs, released_queues from {s}.release_stale_locks()",
    "register_crontabs": """select identifier,
  greatest(known_since, timestamptz '0001-01-02 00:00+00'),
  case when last_execution is not null then least(
    greatest(last_execution, timestamptz '0001-01-02 00:00+00'),
    timestamptz '9999-12-30 00:00+00'
  ) end
from {s}.register_crontabs(%s)""",
    "add_cron_jobs": "select {s}.add_cron_jobs(%s, %s)",
    "now": "select pg_catalog.clock_timestamp()",
}


class Heartbeat(NamedTuple):
    """What the database returns to a heartbeat; times are seconds."""

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
    #: How many idle workers run the same tasks, with this one.
    fellows: int
    #: When the server started, by its own clock, in seconds since 1970.
    server_started: float
    #: The ids of dead workers, with the numbers of their jobs.
    dead: list[tuple[str, int]]


class Records(NamedTuple):
    """What is told of completed jobs where their history is kept, in their order."""

    #: JSON texts; None: there is none.
    results: list[str | None]
    #: For how long each task ran.
    seconds: list[float]
    #: Why there is no result, where the task returned one.
    problems: list[str | None]


class Completing(NamedTuple):
    """A statement that completes a job; it returns a row if the worker does not hold it."""

    query: bytes
    values: tuple[Any, ...]


class Fetched(NamedTuple):
    """What a fetch brought."""

    rows: list[Row]
    #: Whether there may be more, to be fetched at once.
    more: bool
    #: Seconds until a rate or a pause lets more start; None: neither holds a job back.
    again_in: float | None
    #: Whether a limit, a rate or a pause may hold jobs back.
    is_limited: bool

    @property
    def has_told(self) -> bool:
        """Whether others were told that this is all, if they were to be."""
        return bool(self.rows) and not (self.more or self.is_limited)

    @classmethod
    def of(cls, rows: list[Row], wanted: int) -> Fetched:
        """Return what the rows of a fetch of so many jobs say; the first is there in any case."""
        hint = rows[0][-1] or ""
        if rows[0][0] is None:
            rows = []
        again_in = float(hint) if hint[:1].isdigit() else None
        is_limited = hint == "limited" or again_in is not None
        return cls(rows, len(rows) == wanted or hint == "true", again_in, is_limited)


class Verdict(NamedTuple):
    """What the worker is to do with a job that it holds: it is cancelled, or paused."""

    job_id: int
    verdict: Literal["cancelled", "paused"]
    reason: str | None
    requested_by: str | None


def finishing(
    worker_id: str, ids: list[int], records: Records | None, can_record: bool
) -> tuple[str, tuple[Any, ...]]:
    """Return the function that completes jobs, and its values.

    Arrays are written here: the driver looks at each number on its own.
    """
    array = f"{{{','.join(map(str, ids))}}}"
    if not can_record:
        return "finish_jobs", (worker_id, array)
    if records is None:
        return "finish_jobs_with_results", (worker_id, array, None, None, None)
    # Arrays without any value are short.
    results = records.results if any(records.results) else []
    problems = records.problems if any(records.problems) else []
    seconds = f"{{{','.join(map('%.6f'.__mod__, records.seconds))}}}"
    return "finish_jobs_with_results", (worker_id, array, results, seconds, problems)


def split_time(when: datetime | timedelta | None) -> tuple[datetime | None, timedelta | None]:
    """Return a time, or else a delay by the database's clock."""
    return (None, when) if isinstance(when, timedelta) else (when, None)
