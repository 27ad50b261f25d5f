"""The SQL that the client sends: calls of the extension's functions, and of its view jobs.

Each text is written once, with psycopg's named parameters; casts say the types, since drivers
differ in what they send.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from graphile_worker.naming import SCHEMA, quote_ident

#: Values of a statement by name.
Values = dict[str, Any]

# In the order of Job, which is made from it; text and not json, since drivers decode that in
# different ways.
_PAYLOAD = "cast(j.payload as text)"


def _time(column: str) -> str:
    """Return a column's time as Python can hold it: its calendar is shorter than PostgreSQL's."""
    first, last = "timestamptz '0001-01-02 00:00+00'", "timestamptz '9999-12-30 00:00+00'"
    return (
        f"case when {column} < {first} then {first} when {column} > {last} then {last}"
        f" else {column} end"
    )


_REST = (
    f"cast(j.flags as text), j.priority, {_time('j.run_at')}, j.attempts, j.max_attempts,"
    f" j.last_error, {_time('j.created_at')}, {_time('j.updated_at')}, j.key,"
    f" {_time('j.locked_at')}, j.locked_by, j.revision, j.is_available, j.task_id, j.job_queue_id"
)
_NAMED = f"select j.id, n.task_identifier, n.queue_name, {_PAYLOAD}, {_REST} from"
_NAMES = "cross join lateral {s}.job_names(j.task_id, j.job_queue_id) as n"
_RUN_AT = (
    "coalesce(cast(%(run_at)s as timestamptz),"
    " pg_catalog.now() + cast(cast(%(delay)s as text) as interval))"
)
_ARGUMENTS = f"""
  cast(%(identifier)s as text), cast(%(payload)s as json), cast(%(queue_name)s as text), {_RUN_AT},
  cast(%(max_attempts)s as integer), cast(%(job_key)s as text), cast(%(priority)s as integer),
  cast(%(flags)s as text[]), cast(%(job_key_mode)s as text)"""
_ADD_JOB = f"{{s}}.add_job({_ARGUMENTS}) as j"
# The whole statement is the call, so that Citus carries it to the node of the route.
_ADD_TO_ROUTE = f"""select {{s}}.add_job_to_route(cast(%(route)s as text),{_ARGUMENTS})"""
_ADD_MANY_TO_ROUTE = (
    "select {s}.add_jobs_to_route(cast(%(route)s as text), cast(%(specs)s as json))"
)
# Jobs that differ only in their payloads, which are one JSON array, and in their ids: these come
# back, and the rest once for all.
_ADD_ALIKE = f"""with given as (
  select pg_catalog.array_agg(cast(row(cast(%(identifier)s as text), given.payload,
    cast(%(queue_name)s as text), {_RUN_AT}, cast(%(max_attempts)s as smallint), null,
    cast(%(priority)s as smallint), cast(%(flags)s as text[])
  ) as {{s}}.job_spec) order by given.place) as specs
  from pg_catalog.json_array_elements(cast(%(payloads)s as json))
    with ordinality as given (payload, place)
),
j as materialized (
  select j.* from given cross join lateral {{s}}.add_jobs(given.specs) as j
)
select (select pg_catalog.array_agg(j.id) from j), {_REST} from j limit 1"""
# Jobs of any kind, as a JSON document: no driver sends arrays of composites fast, or alike. Names
# are looked up once for all jobs that have them.
_ADD_MANY = f"""with given as materialized (
  select
    pg_catalog.array_agg(cast(row(s.identifier, s.payload, s.queue_name,
      coalesce(s.run_at, pg_catalog.now() + s.delay), s.max_attempts, s.job_key, s.priority, s.flags
    ) as {{s}}.job_spec) order by s.place) as specs,
    pg_catalog.array_agg(s.job_key_mode order by s.place) as modes
  from rows from (pg_catalog.json_to_recordset(cast(%(specs)s as json)) as (
    identifier text, payload json, queue_name text, run_at timestamptz, delay interval,
    max_attempts smallint, job_key text, job_key_mode text, priority smallint, flags text[]
  )) with ordinality as s (identifier, payload, queue_name, run_at, delay, max_attempts, job_key,
    job_key_mode, priority, flags, place)
),
j as materialized (
  select added.*
  from given cross join lateral rows from ({{s}}.add_jobs_with_modes(given.specs, given.modes))
    with ordinality as added (id, job_queue_id, task_id, payload, priority, run_at, attempts,
      max_attempts, last_error, created_at, updated_at, key, locked_at, locked_by, revision, flags,
      is_available, place)
),
n as materialized (
  select numbers.task_id, numbers.job_queue_id, names.*
  from (select distinct j.task_id, j.job_queue_id from j) as numbers
  cross join lateral {{s}}.job_names(numbers.task_id, numbers.job_queue_id) as names
)
{_NAMED} j join n on n.task_id = j.task_id
  and coalesce(n.job_queue_id, 0) = coalesce(j.job_queue_id, 0)
order by j.place"""
_IDS = "cast(%(job_ids)s as bigint[])"

#: How many jobs are ready, scheduled, running and failed.
COUNTS = """select
  pg_catalog.count(*) filter (where locked_at is null and attempts < max_attempts
    and run_at <= pg_catalog.now()),
  pg_catalog.count(*) filter (where locked_at is null and attempts < max_attempts
    and run_at > pg_catalog.now()),
  pg_catalog.count(*) filter (where locked_at is not null),
  pg_catalog.count(*) filter (where locked_at is null and attempts >= max_attempts)
from {s}.jobs"""

_NAME = "cast(%(name)s as text)"
_UNTIL = (
    "coalesce(cast(%(until)s as timestamptz),"
    " pg_catalog.clock_timestamp() + cast(cast(%(delay)s as text) as interval)),"
    " cast(%(reason)s as text)"
)

_RECORD = (
    "r.id, r.state, r.task_identifier, r.queue_name, r.key, r.priority, cast(r.flags as text),"
    f" {_time('r.run_at')}, r.created_at, r.attempts, r.max_attempts, r.started_at, r.finished_at,"
    " r.duration, r.worker_id, r.error, cast(r.result as text), r.result_problem,"
    " cast(r.attempt_log as text)"
)

# By verb: the level of access that it takes, and its text.
_TEXTS = {
    # Without the names, which the caller knows but with unsafe_dedupe.
    "add_job": ("enqueue", f"select j.id, {_PAYLOAD}, {_REST} from {_ADD_JOB}"),
    "add_job_named": ("enqueue", f"{_NAMED} {_ADD_JOB} {_NAMES}"),
    "add_job_to_route": ("enqueue", _ADD_TO_ROUTE),
    "add_jobs_to_route": ("enqueue", _ADD_MANY_TO_ROUTE),
    "add_jobs_alike": ("enqueue", _ADD_ALIKE),
    "add_jobs": ("enqueue", _ADD_MANY),
    "remove_job": (
        "admin",
        f"{_NAMED} {{s}}.remove_job(cast(%(job_key)s as text)) as j {_NAMES}"
        " where j.id is not null",
    ),
    "complete_jobs": ("admin", f"{_NAMED} {{s}}.complete_jobs({_IDS}) as j {_NAMES} order by j.id"),
    "permanently_fail_jobs": (
        "admin",
        f"{_NAMED} {{s}}.permanently_fail_jobs({_IDS}, cast(%(error_message)s as text)) as j"
        f" {_NAMES} order by j.id",
    ),
    "reschedule_jobs": (
        "admin",
        f"{_NAMED} {{s}}.reschedule_jobs({_IDS}, {_RUN_AT}, cast(%(priority)s as integer),"
        f" cast(%(attempts)s as integer), cast(%(max_attempts)s as integer)) as j {_NAMES}"
        " order by j.id",
    ),
    "force_unlock_workers": (
        "admin",
        "select {s}.force_unlock_workers(cast(%(worker_ids)s as text[]))",
    ),
    "list_jobs": (
        "admin",
        f"{_NAMED} {{s}}.list_jobs({_IDS}, cast(%(job_keys)s as text[]),"
        " cast(%(task_identifiers)s as text[]), cast(%(queue_names)s as text[]),"
        " cast(%(states)s as text[]), cast(%(after_id)s as bigint), cast(%(max_jobs)s as integer)"
        f") as j {_NAMES} order by j.id",
    ),
    "delete_failed_jobs": (
        "admin",
        "select {s}.delete_failed_jobs(coalesce(cast(%(failed_before)s as timestamptz),"
        " pg_catalog.now() - cast(cast(%(age)s as text) as interval)),"
        " cast(%(max_jobs)s as integer))",
    ),
    "delete_unused_queues": ("admin", "select {s}.delete_unused_queues()"),
    "delete_unused_tasks": ("admin", "select {s}.delete_unused_tasks(cast(%(keep)s as text[]))"),
    "counts": ("observe", COUNTS),
    "pause_queue": ("admin", f"select {{s}}.pause_queue({_NAME}, {_UNTIL})"),
    "resume_queue": ("admin", f"select {{s}}.resume_queue({_NAME})"),
    "pause_task": ("admin", f"select {{s}}.pause_task({_NAME}, {_UNTIL})"),
    "resume_task": ("admin", f"select {{s}}.resume_task({_NAME})"),
    "pause_all": ("admin", f"select {{s}}.pause_all({_UNTIL})"),
    "resume_all": ("admin", "select {s}.resume_all()"),
    "pauses": (
        "observe",
        f"select p.scope, p.name, {_time('p.until')}, p.reason, p.paused_at, p.paused_by"
        " from {s}.pauses as p order by p.scope, p.name",
    ),
    "set_limit": (
        "admin",
        f"select {{s}}.set_limit(cast(%(scope)s as text), {_NAME},"
        " cast(%(max_running)s as integer), cast(%(rate)s as integer),"
        " cast(cast(%(per)s as text) as interval), cast(%(burst)s as integer))",
    ),
    "remove_limit": ("admin", f"select {{s}}.remove_limit(cast(%(scope)s as text), {_NAME})"),
    "limits": (
        "observe",
        "select l.scope, l.name, l.max_running, l.rate, l.per, l.burst, l.running"
        " from {s}.limits as l order by l.scope, l.name",
    ),
    "schedule": (
        "admin",
        f"select {{s}}.schedule({_NAME}, cast(%(task)s as text), cast(%(cron)s as text),"
        " cast(%(tz)s as text), cast(%(payload)s as json), cast(%(queue_name)s as text),"
        " cast(%(priority)s as integer), cast(%(max_attempts)s as integer),"
        " cast(%(job_key)s as text), cast(%(flags)s as text[]),"
        " cast(cast(%(catch_up)s as text) as interval), cast(%(overlap)s as text))",
    ),
    "unschedule": ("admin", f"select {{s}}.unschedule({_NAME})"),
    "pause_schedule": ("admin", f"select {{s}}.pause_schedule({_NAME})"),
    "resume_schedule": ("admin", f"select {{s}}.resume_schedule({_NAME})"),
    "run_schedule_now": ("admin", f"select {{s}}.run_schedule_now({_NAME})"),
    "schedules": (
        "observe",
        "select s.name, s.task, s.cron, s.tz, cast(s.payload as text), s.queue_name, s.priority,"
        " s.max_attempts, s.job_key, s.flags, s.catch_up, s.overlap, s.is_paused, s.next_runs,"
        " s.last_run_at, s.last_job_id, s.last_error from {s}.schedules as s order by s.name",
    ),
    "keep_history": (
        "admin",
        "select {s}.keep_history(cast(%(task)s as text),"
        " cast(cast(%(keep)s as text) as interval), %(results)s, %(payloads)s,"
        " cast(%(max_bytes)s as integer))",
    ),
    "stop_history": ("admin", "select {s}.stop_history(cast(%(task)s as text))"),
    "histories": (
        "observe",
        "select h.task, h.keep, h.results, h.payloads, h.max_bytes, h.is_kept"
        " from {s}.histories as h order by h.task",
    ),
    "keep_failed_jobs": (
        "admin",
        "select {s}.keep_failed_jobs(cast(cast(%(keep)s as text) as interval))",
    ),
    "on_dead_letter": (
        "admin",
        "select {s}.on_dead_letter(cast(%(task)s as text), cast(%(failed_task)s as text))",
    ),
    "discard_jobs": (
        "admin",
        f"{_NAMED} {{s}}.discard_jobs({_IDS}, cast(%(reason)s as text)) as j {_NAMES}"
        " order by j.id",
    ),
    "find_job": (
        "admin",
        f"select {_RECORD}, cast(r.payload as text), r.progress, r.progress_message"
        " from {s}.get_job(cast(%(job_id)s as bigint)) as r",
    ),
    "job_history": (
        "observe",
        f"select {_RECORD} from (select h.job_id as id, h.* from {{s}}.job_history as h"
        " where (cast(%(states)s as text[]) is null or h.state = any (cast(%(states)s as text[])))"
        " and (cast(%(tasks)s as text[]) is null"
        " or h.task_identifier = any (cast(%(tasks)s as text[])))"
        " and (cast(%(before_time)s as timestamptz) is null or (h.finished_at, h.job_id)"
        " < (cast(%(before_time)s as timestamptz), cast(%(before_id)s as bigint)))"
        " order by h.finished_at desc, h.job_id desc limit %(limit)s) as r"
        " order by r.finished_at desc, r.id desc",
    ),
    "set_payload_schema": (
        "admin",
        "select cast({s}.set_payload_schema(cast(%(task)s as text),"
        " cast(cast(%(schema)s as text) as json), cast(%(on_invalid)s as text)) as text)",
    ),
    "payload_schemas": (
        "observe",
        "select p.task, cast(p.schema as text), p.on_invalid, p.set_at, p.set_by"
        " from {s}.payload_schemas as p order by p.task",
    ),
    "find_unfit_jobs": (
        "admin",
        "select u.job_id, u.problem from {s}.find_unfit_jobs(cast(%(task)s as text),"
        " cast(cast(%(schema)s as text) as json), cast(%(after_id)s as bigint),"
        " cast(%(max_jobs)s as integer)) as u order by u.job_id",
    ),
    "get_results": (
        "enqueue",
        "select r.job_id, r.state, cast(r.result as text), r.result_problem, r.error,"
        " r.results_are_kept"
        " from {s}.get_results(cast(%(job_ids)s as bigint[])) as r",
    ),
    "watch_results": (
        "enqueue",
        "select {s}.watch_results(cast(%(waiter)s as text), cast(%(seconds)s as integer))",
    ),
    "cancel_jobs": (
        "admin",
        f"select c.job_id, c.outcome from {{s}}.cancel_jobs({_IDS}, cast(%(reason)s as text)) as c",
    ),
    # Fails for no one and in no schema: an error would end the caller's transaction.
    "check": (
        "enqueue",
        """select
  exists (select from pg_catalog.pg_namespace where nspname = cast(%(schema)s as text)),
  (select p.prosrc from pg_catalog.pg_proc as p
    join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
    where n.nspname = cast(%(schema)s as text) and p.proname = 'version' and p.pronargs = 0),
  exists (select from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = cast(%(schema)s as text) and c.relname in ('_private_jobs', 'job_queues'))""",
    ),
}


@dataclass(frozen=True)
class Statement:
    """A text for one schema, in the forms that the drivers want."""

    verb: str
    level: str
    schema: str
    text: str

    @cached_property
    def encoded(self) -> bytes:
        """For psycopg, which wants to know that no user's text is in it."""
        return self.text.encode()

    @cached_property
    def colons(self) -> str:
        """With :name parameters, for SQLAlchemy."""
        text = self.text.replace(":", r"\:")
        # In one go: a schema's name may hold what looks like a parameter.
        return re.sub(r"%%|%\((\w+)\)s", lambda m: f":{m[1]}" if m[1] else "%", text)


@lru_cache(maxsize=512)
def statement(verb: str, schema: str = SCHEMA) -> Statement:
    """Return the statement of a verb; raise ValueError for a name that no schema can have."""
    level, text = _TEXTS[verb]
    return in_schema(verb.removesuffix("_named").removesuffix("_alike"), level, text, schema)


def in_schema(verb: str, level: str, text: str, schema: str) -> Statement:
    """Return a text as the statement for one schema, whose name it has as ``{s}``."""
    ident = quote_ident(schema).replace("%", "%%")
    return Statement(verb, level, schema, text.replace("{s}", ident))
