"""A task with transaction=True writes and completes its job in one transaction: both, or neither."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import timedelta
from typing import Any

import psycopg_pool
import pytest
from graphile_worker import Tasks
from graphile_worker.retry import RetryAfter, Snooze
from graphile_worker.worker import Event, Events, context
from sqlalchemy import text
from support.live import add, once, running, work_role
from support.pg import Database, wait_for

pytestmark = [
    pytest.mark.majors(13, 18),
    pytest.mark.usefixtures("effects", "in_threads_only"),
]
EFFECTS = "select job, what from public.effects order by 1, 2"


def registry(kind: str) -> Tasks:
    """Tasks of each kind that write an effect and then do what their payload says."""
    tasks = Tasks()
    if kind == "coroutine":

        @tasks.task("pay", transaction=True, retry=None)
        async def pay(then: str = "") -> Any:
            job = context().job.id
            await context().transaction.execute(
                "insert into public.effects values (%s, 'paid')", [job]
            )
            return _then(then)

        @tasks.task("sql", transaction=True)
        async def sql(query: str) -> None:
            await context().transaction.execute(query.encode())

        @tasks.task("session", transaction=True)
        async def session() -> None:
            async with context().session() as found:
                job = context().job.id
                await found.execute(
                    text("insert into public.effects values (:j, 'one')"), {"j": job}
                )
                await found.commit()
                await found.execute(
                    text("insert into public.effects values (:j, 'two')"), {"j": job}
                )
                await found.rollback()
                await found.execute(
                    text("insert into public.effects values (:j, 'three')"), {"j": job}
                )

        @tasks.task("chain", transaction=True)
        async def chain(fails: bool = False) -> None:
            await context().add_job("next", {})
            if fails:
                raise ValueError("no")

        return tasks

    @tasks.task("pay", transaction=True)
    def pay_in_thread(then: str = "") -> Any:
        job = context().job.id
        context().transaction.execute("insert into public.effects values (%s, 'paid')", [job])
        return _then(then)

    @tasks.task("sql", transaction=True)
    def sql_in_thread(query: str) -> None:
        context().transaction.execute(query.encode())

    @tasks.task("session", transaction=True)
    def session_in_thread() -> None:
        with context().session() as found:
            job = context().job.id
            found.execute(text("insert into public.effects values (:j, 'one')"), {"j": job})
            found.commit()
            found.execute(text("insert into public.effects values (:j, 'two')"), {"j": job})
            found.rollback()
            found.execute(text("insert into public.effects values (:j, 'three')"), {"j": job})

    @tasks.task("chain", transaction=True)
    def chain_in_thread(fails: bool = False) -> None:
        context().add_job_sync("next", {})
        if fails:
            raise ValueError("no")

    return tasks


def _then(then: str) -> Any:
    if then == "raise":
        raise ValueError("after the effect")
    if then == "snooze":
        raise Snooze(timedelta(hours=1))
    if then == "later":
        raise RetryAfter(timedelta(hours=1))
    if then == "exit":
        raise SystemExit(1)
    return {"paid": True}


KINDS = ["coroutine", "thread"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_effect_and_the_end_are_one(db: Database, kind: str) -> None:
    db.rows("select graphile_worker.keep_history()")
    job = add(db, "pay")
    events, seen = Events(), list[Event]()
    events.on("job:success", "job:complete")(seen.append)
    once(db, registry(kind), events=events)
    assert db.rows(EFFECTS) == [(job, "paid")]
    assert db.rows("select id from graphile_worker.jobs") == []
    assert db.row("select result, state from graphile_worker.job_history") == (
        {"paid": True}, "completed",
    )  # fmt: skip
    assert {event.name for event in seen} == {"job:success", "job:complete"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("then", ["raise", "snooze", "later", "exit"])
def test_what_does_not_succeed_leaves_no_effect(db: Database, kind: str, then: str) -> None:
    job = add(db, "pay", f'{{"then": "{then}"}}')
    once(db, registry(kind))
    assert db.rows(EFFECTS) == []
    (row,) = db.rows("select id, attempts, locked_by from graphile_worker.jobs")
    assert row == (job, 0 if then == "snooze" else 1, None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("select 1/0", "division by zero"),
        ("insert into public.effects values (1, 'a'); select no_such()", "no_such"),
        ("select pg_terminate_backend(pg_backend_pid())", "terminat"),
    ],
)
def test_errors_of_the_database_fail_the_attempt(
    db: Database, kind: str, query: str, said: str
) -> None:
    job = add(db, "sql", json.dumps({"query": query}).replace("'", "''"))
    once(db, registry(kind))
    assert db.rows(EFFECTS) == []
    error = db.value("select last_error from graphile_worker.jobs where id = %s", job)
    assert said in error


@pytest.mark.parametrize("kind", KINDS)
def test_a_deferred_constraint_fails_the_attempt_at_the_commit(db: Database, kind: str) -> None:
    db.rows("create table public.once (n int unique deferrable initially deferred)")
    db.rows(f"grant all on public.once to {work_role(db)}")
    try:
        db.rows("insert into public.once values (1)")
        job = add(db, "sql", '{"query": "insert into public.once values (1)"}')
        once(db, registry(kind))
        assert "duplicate key" in db.value(
            "select last_error from graphile_worker.jobs where id = %s", job
        )
        assert db.value("select count(*) from public.once") == 1
    finally:
        db.rows("drop table public.once")


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_was_given_to_another_worker_leaves_no_effect(db: Database, kind: str) -> None:
    tasks, go_on, started = registry(kind), threading.Event(), threading.Event()

    def gate(context_: Any) -> None:
        started.set()
        go_on.wait(60)

    async def middleware(context_: Any, call_next: Any) -> Any:
        result = await call_next()
        await asyncio.to_thread(gate, context_)
        return result

    with running(tasks, db, middleware=(middleware,)):
        job = add(db, "pay")
        wait_for(started.is_set)
        db.rows("update graphile_worker._private_jobs set locked_by = 'another'")
        go_on.set()
        wait_for(
            lambda: (
                db.value(
                    "select count(*) from pg_stat_activity where datname = current_database()"
                    " and state like 'idle in transaction%%'"
                )
                == 0
            )
        )
    assert db.rows(EFFECTS) == []
    assert db.rows("select id, locked_by from graphile_worker.jobs") == [(job, "another")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_of_sqlalchemy_works_in_the_transaction(db: Database, kind: str) -> None:
    job = add(db, "session")
    once(db, registry(kind))
    assert db.rows(EFFECTS) == [(job, "one"), (job, "three")]
    assert db.rows("select id, last_error from graphile_worker.jobs") == []


@pytest.mark.parametrize("kind", KINDS)
def test_jobs_are_added_in_the_transaction(db: Database, kind: str) -> None:
    tasks = registry(kind)
    add(db, "chain", '{"fails": true}')
    once(db, tasks)
    count = "select count(*) from graphile_worker.jobs where task_identifier = 'next'"
    assert db.value(count) == 0
    add(db, "chain")
    once(db, tasks)
    assert db.value(count) == 1


def test_the_task_cannot_commit_by_itself(db: Database) -> None:
    tasks = Tasks()

    @tasks.task("sly", transaction=True)
    async def sly() -> None:
        await context().transaction.commit()

    job = add(db, "sly")
    once(db, tasks)
    assert "forbidden within a Transaction" in db.value(
        "select last_error from graphile_worker.jobs where id = %s", job
    )


def test_jobs_wait_without_using_an_attempt_while_there_is_no_connection(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = registry("coroutine")

    def refused(*_: Any, **__: Any) -> Any:
        raise psycopg_pool.PoolTimeout("couldn't get a connection after 0.1 sec")

    monkeypatch.setattr(psycopg_pool.AsyncConnectionPool, "connection", refused)
    job = add(db, "pay")
    once(db, tasks)
    assert db.row(
        "select id, attempts, run_at > now() + interval '3 s' from graphile_worker.jobs"
    ) == (job, 0, True)
