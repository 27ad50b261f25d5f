"""History and transactions in a bad night, and what has to hold of them."""

from __future__ import annotations

from typing import Any

import psycopg

G = "graphile_worker"

#: Jobs whose effect does not fit to how they ended: it comes with the completion, once.
_EFFECTS = f"""
    select ids.id, count(distinct effects.ctid), count(distinct history.finished_at)
    from unnest(%s::bigint[]) as ids (id)
    left join public.effects on effects.job = ids.id
    left join {G}._private_history as history
      on history.job_id = ids.id and history.state = 'completed' and history.worker_id is not null
      and history.task_identifier = 'pay'
    group by ids.id
    having count(distinct effects.ctid) <> count(distinct history.finished_at)
"""
_TWICE = (
    f"select job_id from {G}.job_history where state = 'completed' group by 1 having count(*) > 1"
)
_WRONG = f"""
    select job_id, result::text from {G}.job_history
    where state = 'completed' and worker_id is not null and task_identifier in ('ok', 'pay')
    and (result ->> 'job')::bigint is distinct from job_id
"""


def prepare(conn: psycopg.Connection[Any]) -> None:
    """Keep history, and give effects a table."""
    conn.execute(f"select {G}.keep_history(keep => '1 hour')".encode())
    conn.execute("create table public.effects (job bigint)")
    conn.execute("grant insert on public.effects to worker")


def records_are_there(conn: psycopg.Connection[Any], added: set[int]) -> None:
    """Each job that is gone has a record; each completed one has one, with its result."""
    left = {job for (job,) in conn.execute(f"select id from {G}.jobs")}
    recorded = {job for (job,) in conn.execute(f"select job_id from {G}.job_history")}
    assert added - left - recorded == set(), "jobs are gone without a record"
    assert conn.execute(_TWICE.encode()).fetchall() == [], "a job was completed twice"
    assert conn.execute(_WRONG.encode()).fetchall() == [], "a record has another result"


def effects_came_once(conn: psycopg.Connection[Any], added: set[int]) -> None:
    """A task with a transaction left its effect once if its job was completed, else none."""
    assert conn.execute(_EFFECTS.encode(), [list(added)]).fetchall() == []
