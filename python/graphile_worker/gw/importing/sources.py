"""The queues whose jobs are imported: what of each is a waiting job, and what it becomes.

A statement deletes the waiting jobs and returns them as ours, in their order:
``place, task, payload, queue_name, run_at, max_attempts, job_key, priority, flag``. A row that
another transaction holds is waited for, and left if it does not wait any more.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Another queue in this database; {from} is its schema."""

    name: str
    schema: str
    #: A table of it, to tell whether it is there.
    table: str
    #: Deletes the waiting jobs, and returns them.
    waiting: str
    #: Counts what is there by state, and says which states are waiting.
    states: str
    #: Does the same with the schedules that the database has, as ``name, task, cron, tz, payload``.
    schedules: str | None = None


PROCRASTINATE = Source(
    "Procrastinate", "public", "procrastinate_jobs",
    waiting="""
      delete from {from}.procrastinate_jobs as jobs
      where jobs.status = 'todo' and ({only}::text[] is null or jobs.task_name = any ({only}))
      returning jobs.id as place, jobs.task_name::text as task, jobs.args::json as payload,
        jobs.lock as queue_name, jobs.scheduled_at as run_at, null::integer as max_attempts,
        jobs.queueing_lock as job_key, -jobs.priority as priority,
        nullif(jobs.queue_name, 'default')::text as flag
    """,
    states="""
      select status::text as state, status = 'todo' as is_waiting, pg_catalog.count(*) as jobs
      from {from}.procrastinate_jobs
      where {only}::text[] is null or task_name = any ({only}) group by status
    """,
)  # fmt: skip

# A key means one waiting job with the policies short and exclusive, and one running job with
# singleton and stately; with standard, nothing that lasts.
PG_BOSS = Source(
    "pg-boss", "pgboss", "job",
    waiting="""
      delete from {from}.job as jobs
      where jobs.state in ('created', 'retry') and not jobs.blocked
      and ({only}::text[] is null or jobs.name = any ({only}))
      returning row(jobs.created_on, jobs.id) as place, jobs.name as task,
        jobs.data::json as payload,
        case when jobs.policy in ('singleton', 'stately')
          then pg_catalog.concat_ws(':', jobs.name, jobs.singleton_key) end as queue_name,
        jobs.start_after as run_at,
        greatest(jobs.retry_limit + 1 - jobs.retry_count, 1) as max_attempts,
        case when jobs.policy in ('short', 'exclusive')
          then pg_catalog.concat_ws(':', jobs.name, jobs.singleton_key) end as job_key,
        -jobs.priority as priority, null::text as flag
    """,
    states="""
      select case when blocked then 'blocked' else state::text end as state,
        state in ('created', 'retry') and not blocked as is_waiting, pg_catalog.count(*) as jobs
      from {from}.job
      where {only}::text[] is null or name = any ({only}) group by 1, 2
    """,
    schedules="""
      delete from {from}.schedule as schedules
      where schedules.cron is not null
      and ({only}::text[] is null or schedules.name = any ({only}))
      returning pg_catalog.concat_ws(':', schedules.name, nullif(schedules.key, '')) as name,
        schedules.name as task, schedules.cron, coalesce(schedules.timezone, 'UTC') as tz,
        schedules.data::json as payload
    """,
)  # fmt: skip

RIVER = Source(
    "River", "public", "river_job",
    waiting="""
      delete from {from}.river_job as jobs
      where jobs.state in ('available', 'scheduled', 'retryable', 'pending')
      and ({only}::text[] is null or jobs.kind = any ({only}))
      returning jobs.id as place, jobs.kind as task, jobs.args::json as payload,
        null::text as queue_name, jobs.scheduled_at as run_at,
        greatest(jobs.max_attempts - jobs.attempt, 1) as max_attempts, null::text as job_key,
        jobs.priority::integer as priority, nullif(jobs.queue, 'default') as flag
    """,
    states="""
      select state::text as state,
        state in ('available', 'scheduled', 'retryable', 'pending') as is_waiting,
        pg_catalog.count(*) as jobs
      from {from}.river_job
      where {only}::text[] is null or kind = any ({only}) group by state
    """,
)  # fmt: skip

SOURCES = {"procrastinate": PROCRASTINATE, "pg-boss": PG_BOSS, "river": RIVER}
