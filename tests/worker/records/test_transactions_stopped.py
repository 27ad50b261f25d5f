"""What is left of a task with transaction=True that is stopped, or has no connection: nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import psycopg
import pytest
from graphile_worker import Tasks, aio
from graphile_worker.errors import GraphileWorkerError, InvalidArgument
from graphile_worker.worker import context
from graphile_worker.worker.executors import transaction
from support.live import add, once, running
from support.pg import Database, wait_for

pytestmark = [
    pytest.mark.majors(13, 18),
    pytest.mark.usefixtures("effects", "in_threads_only"),
]
EFFECTS = "select job, what from public.effects order by 1, 2"


def test_a_thread_that_is_timed_out_writes_nothing_however_long_it_goes_on(db: Database) -> None:
    tasks, go_on, ended = Tasks(), threading.Event(), list[BaseException | None]()

    @tasks.task("slow", transaction=True, timeout=0.2)
    def slow() -> None:
        conn = context().transaction
        conn.execute("insert into public.effects values (1, 'before')")
        go_on.wait(60)
        try:
            conn.execute("insert into public.effects values (1, 'after')")
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    @tasks.task("other", transaction=True)
    def other() -> None:
        context().transaction.execute("insert into public.effects values (2, 'other')")

    with running(tasks, db, concurrency=2, max_connections=1):
        job = add(db, "slow")
        wait_for(
            lambda: db.value(
                "select last_error is not null from graphile_worker.jobs where id = %s", job
            )
        )
        add(db, "other")
        wait_for(lambda: db.rows(EFFECTS) == [(2, "other")])
        go_on.set()
        wait_for(lambda: ended)
        assert isinstance(ended[0], psycopg.Error)
        assert db.rows(EFFECTS) == [(2, "other")]


def test_a_cancelled_job_leaves_no_effect(db: Database) -> None:
    tasks, started = Tasks(), threading.Event()

    @tasks.task("long", transaction=True)
    async def long() -> None:
        await context().transaction.execute("insert into public.effects values (1, 'x')")
        started.set()
        await asyncio.sleep(600)

    with running(tasks, db):
        job = add(db, "long")
        wait_for(started.is_set)
        db.rows("select graphile_worker.cancel_jobs(array[%s::bigint])", job)
        wait_for(
            lambda: db.value(
                "select locked_at is null from graphile_worker.jobs where id = %s", job
            )
        )
    assert db.rows(EFFECTS) == []


def test_a_transaction_that_is_open_for_long_is_worth_a_warning(
    db: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transaction, "LONG", 0.01)
    tasks = Tasks()

    @tasks.task("long", transaction=True)
    async def long() -> None:
        await context().transaction.execute("select 1")
        while not any("has held its transaction open" in text for text in caplog.messages):
            await asyncio.sleep(0.01)

    add(db, "long")
    with caplog.at_level(logging.WARNING):
        once(db, tasks)
    assert db.rows("select id from graphile_worker.jobs") == []


def test_processes_and_other_tasks_have_no_transaction(db: Database) -> None:
    for registry_ in (Tasks(), aio.Tasks()):
        with pytest.raises(InvalidArgument, match="a process cannot share"):
            registry_.task("x", transaction=True, executor="process")
    seen: list[BaseException] = []

    async def plain(payload: Any) -> None:
        try:
            assert context().transaction
        except GraphileWorkerError as error:
            seen.append(error)

    add(db, "plain")
    once(db, {"plain": plain})
    assert "transaction=True" in str(seen[0])
