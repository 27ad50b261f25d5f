"""The checks of gw doctor that read pauses, limits, schedules and history."""

from __future__ import annotations

from graphile_worker.gw.doctor.findings import Examination, Finding
from graphile_worker.gw.queue import covers
from graphile_worker.gw.values import many, plain, span

# Jobs that have been due for a while, of each pause and of each name that is at its limit.
_DUE = """
    select jobs.task_identifier, jobs.queue_name, jobs.run_at from {s}.jobs
    where jobs.locked_at is null and jobs.attempts < jobs.max_attempts
    and jobs.run_at < pg_catalog.now() - %(seconds)s * interval '1 second'
"""
_OLDEST = """
    extract(epoch from pg_catalog.now()
      - greatest(pg_catalog.min(due.run_at), timestamptz '0001-01-01 00:00+00')
    )::float8 as seconds
"""
_PAUSED = f"""
    select pauses.scope, pauses.name, pauses.paused_by, pauses.reason,
      extract(epoch from pg_catalog.now() - pauses.paused_at)::float8 as paused,
      pg_catalog.count(*) as jobs, {_OLDEST}
    from {{s}}.pauses join ({_DUE}) as due on case pauses.scope
      when 'task' then {covers("pauses.name", "due.task_identifier")}
      when 'queue' then {covers("pauses.name", "due.queue_name")}
      else true
    end
    where pauses.until is null
    group by 1, 2, 3, 4, 5
    order by 1, 2
"""
_FULL = f"""
    select states.scope, states.name, states.limit_name, states.running, states.max_running,
      states.next_start_at > pg_catalog.clock_timestamp() as is_rate,
      pg_catalog.count(*) as jobs, {_OLDEST}
    from {{s}}.limit_states as states join ({_DUE}) as due
      on states.name
        = case states.scope when 'task' then due.task_identifier else due.queue_name end
    where states.slots = 0 and states.limit_name is not null
    group by 1, 2, 3, 4, 5, 6
    order by jobs desc, 1, 2
    limit 20
"""
_SCHEDULES = """
    select name, task, last_error, is_paused, next_runs[1] as due,
      extract(epoch from pg_catalog.now() - next_runs[1])::float8 as late
    from {s}.schedules
    where last_error is not null
    or (not is_paused and next_runs[1] < pg_catalog.now() - interval '5 minutes')
    order by name
"""
# A partition is dropped when all that is in it is old enough.
_OLD_RECORDS = """
    select extract(epoch from pg_catalog.now() - oldest.finished_at)::float8 as seconds,
      extract(epoch from longest.keep)::float8 as keep
    from (select pg_catalog.min(finished_at) as finished_at from {s}.job_history) as oldest,
      (select pg_catalog.max(keep) as keep from {s}.histories) as longest
    where oldest.finished_at < pg_catalog.now() - longest.keep - case
      when longest.keep <= interval '40 days' then interval '2 days'
      when longest.keep <= interval '1 year' then interval '8 days'
      else interval '32 days'
    end
"""


def pauses(exam: Examination) -> list[Finding]:
    """Find pauses without an end that due jobs wait for."""
    return [
        Finding(
            "pauses", "warning",
            f"{'everything' if row['scope'] == 'all' else row['scope'] + ' ' + plain(row['name'])}"
            f" has been paused for {span(row['paused'])}, and {many(row['jobs'], 'due job')} of it"
            f" wait{'s' if row['jobs'] == 1 else ''}, the oldest for {span(row['seconds'])}",
            f"{plain(row['paused_by'])} paused it"
            + (f": {plain(row['reason'])}" if row["reason"] else " and gave no reason"),
            "`gw resume all`" if row["scope"] == "all"
            else f"`gw resume {row['scope']} '{plain(row['name'])}'`",
        )
        for row in exam.queue.rows(_PAUSED, seconds=exam.limits.overdue)
    ]  # fmt: skip


def limits(exam: Examination) -> list[Finding]:
    """Find tasks and queues at their limit that due jobs have waited for."""
    return [
        Finding(
            "limits", "warning",
            f"{many(row['jobs'], 'job')} of the {row['scope']} {plain(row['name'])}, due for"
            f" {span(row['seconds'])} by now, wait{'s' if row['jobs'] == 1 else ''} for its limit",
            f"{row['running']} of {row['max_running']} run"
            if row["max_running"] is not None and row["running"] >= row["max_running"]
            else "its rate allows no more starts now",
            f"if that is too little: `gw limit {row['scope']} '{plain(row['limit_name'])}'`",
        )
        for row in exam.queue.rows(_FULL, seconds=exam.limits.overdue)
    ]  # fmt: skip


def schedules(exam: Examination) -> list[Finding]:
    """Find schedules whose jobs are refused, or that no worker runs."""
    return [
        Finding(
            "schedules", "problem",
            f"the last run of the schedule {plain(row['name'])} was refused:"
            f" {plain(row['last_error'])}",
            f"no job of the task {plain(row['task'])} was added",
            "set it again with `gw schedule set`",
        )
        if row["last_error"] is not None else
        Finding(
            "schedules", "problem",
            f"the schedule {plain(row['name'])} was due {span(row['late'])} ago, and no worker"
            " added its job",
            "only Python workers of version 1.1.0 or later add the jobs of schedules",
            "start a worker, for instance with `gw run`",
        )
        for row in exam.queue.rows(_SCHEDULES)
    ]  # fmt: skip


def history(exam: Examination) -> list[Finding]:
    """Find records that are kept for too long."""
    return [
        Finding(
            "history", "warning",
            f"the oldest record of a job is {span(row['seconds'])} old, and records are kept for"
            f" {span(row['keep'])}",
            "no worker looks after the history, or long queries read it all the time",
            f"start a worker, or run `select {exam.queue.schema}.maintain_history()`",
        )
        for row in exam.queue.rows(_OLD_RECORDS)
    ]  # fmt: skip
