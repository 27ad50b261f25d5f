"""The table public.ran, where the tasks of worker processes write down each run, and its checks."""

from __future__ import annotations

from support.pg import Database

#: Times are the database's. A run that was cut short has no end.
TABLE = """
    create table if not exists public.ran (
        job_id bigint, attempt integer, task text, payload json, queue_name text, by text,
        worker text, failed boolean not null default false,
        started timestamptz default clock_timestamp(), ended timestamptz
    )
"""


def overlaps(db: Database, what: str) -> int:
    """Count the runs that began before an earlier one of the same job_id or queue_name ended."""
    count: int = db.value(f"""
        with runs as (
            select started, max(coalesce(ended, 'infinity')) over (
                partition by {what} order by started
                rows between unbounded preceding and 1 preceding
            ) as busy_until
            from public.ran where {what} is not null
        )
        select count(*) from runs where started < busy_until
    """)
    return count


def left_behind(db: Database) -> tuple[int, int, int]:
    """Count the jobs, locked jobs and locked queues; after the work all are 0."""
    jobs, locked, queues = db.row("""
        select count(*), count(locked_at),
            (select count(*) from graphile_worker._private_job_queues where locked_at is not null)
        from graphile_worker._private_jobs
    """)
    return jobs, locked, queues
