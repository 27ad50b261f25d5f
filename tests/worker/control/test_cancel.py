"""A job that is cancelled while it runs is stopped as its executor can, and never tried again."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from graphile_worker import Tasks
from graphile_worker.errors import JobCancelled
from graphile_worker.worker import Event, Events, context
from support.live import add, running
from support.pg import Database, wait_for

from worker.contexts import alive
from worker.executors import task_functions

pytestmark = pytest.mark.majors(13, 18)

CANCEL = "select outcome from graphile_worker.cancel_jobs(%s, %s)"
JOB = (
    "select attempts >= max_attempts, locked_by, last_error from graphile_worker.jobs where id = %s"
)


def cancel(db: Database, job: int, reason: str | None = None) -> str:
    return str(db.value(CANCEL, [job], reason))


def heard() -> tuple[Events, list[Event]]:
    events = Events()
    seen: list[Event] = []
    events.on("job:success", "job:error", "job:failed", "job:cancelled")(seen.append)
    return events, seen


def ended(db: Database, job: int) -> Any:
    return lambda: db.value("select locked_at is null from graphile_worker.jobs where id = %s", job)


def test_a_coroutine_is_cancelled_at_once(db: Database) -> None:
    started, events = asyncio.Event(), heard()
    stopped: list[str | None] = []

    async def work(payload: Any) -> None:
        started.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            stopped.append(context().abort.reason)
            raise

    with running({"work": work}, db, events=events[0], grace=600):
        job = add(db, "work")
        wait_for(started.is_set)
        assert cancel(db, job, "wrong customer") == "cancelling"
        wait_for(ended(db, job), "it was stopped", 30)
        wait_for(lambda: events[1])
    said = "Cancelled by postgres: wrong customer"
    assert db.row(JOB, job) == (True, None, said)
    assert stopped == [said]
    (event,) = events[1]
    assert event.name == "job:cancelled"
    assert isinstance(event.error, JobCancelled)
    assert (event.error.cancelled_by, event.error.reason) == ("postgres", "wrong customer")


def test_a_coroutine_that_goes_on_all_the_same_is_cancelled_all_the_same(db: Database) -> None:
    started, events = asyncio.Event(), heard()

    async def work(payload: Any) -> None:
        started.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            return

    with running({"work": work}, db, events=events[0]):
        job = add(db, "work")
        wait_for(started.is_set)
        cancel(db, job)
        wait_for(ended(db, job), "it was stopped", 30)
    assert db.row(JOB, job) == (True, None, "Cancelled by postgres")
    assert [event.name for event in events[1]] == ["job:cancelled"]


@pytest.mark.parametrize("heeds", [True, False])
def test_a_thread_is_told_and_has_the_grace_to_end(db: Database, heeds: bool) -> None:
    started, leave = threading.Event(), threading.Event()

    def work(payload: Any) -> str:
        started.set()
        if heeds:
            assert context().abort.wait(60)
        else:
            leave.wait(60)
        return "it returns"

    with running({"work": work}, db, grace=600 if heeds else 0.2):
        job = add(db, "work")
        wait_for(started.is_set)
        cancel(db, job, "enough")
        wait_for(ended(db, job), "it was stopped", 30)
        leave.set()
    assert db.row(JOB, job) == (True, None, "Cancelled by postgres: enough")


def test_a_process_is_killed_after_the_grace(db: Database, tmp_path: Path) -> None:
    tasks = Tasks()
    tasks.task("sleep", executor="process")(task_functions.stuck)
    file = tmp_path / "pid"
    with running(tasks, db, grace=0.2):
        job = add(db, "sleep", f'{{"file": "{file}"}}')
        wait_for(file.exists)
        wait_for(file.read_text)
        cancel(db, job)
        wait_for(ended(db, job), "it was stopped", 30)
        wait_for(lambda: not alive(int(file.read_text().split()[0])), "it is dead")
    assert db.row(JOB, job)[0] is True


def test_a_program_gets_a_signal_and_then_is_killed(db: Database, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    program = tmp_path / "tasks" / "sleep.sh"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho $$ > {file}\nexec sleep 600\n")
    program.chmod(0o755)
    with running(program.parent, db, grace=600):
        job = add(db, "sleep")
        wait_for(file.exists)
        wait_for(file.read_text)
        cancel(db, job, "no")
        wait_for(ended(db, job), "it was stopped", 30)
        wait_for(lambda: not alive(int(file.read_text().split()[0])), "it is dead")
    assert db.row(JOB, job) == (True, None, "Cancelled by postgres: no")


def test_a_prefetched_job_that_is_cancelled_does_not_start(db: Database) -> None:
    go, ran = threading.Event(), []

    def work(payload: Any) -> None:
        ran.append(context().job.id)
        go.wait(60)

    jobs = [add(db, "work") for _ in range(3)]
    with running({"work": work}, db, concurrency=1, prefetch=2) as worker:
        wait_for(lambda: len(worker._fetcher) == 2, "they are prefetched")
        assert cancel(db, jobs[1]) == "cancelling"
        wait_for(ended(db, jobs[1]), "it went back", 30)
        go.set()
        wait_for(lambda: len(ran) == 2)
    assert ran == [jobs[0], jobs[2]]
    assert db.row(JOB, jobs[1]) == (True, None, "Cancelled by postgres")


def test_without_listen_the_worker_hears_of_it_as_well(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphile_worker.worker.reviewer.REVIEW_EVERY", 0.2)
    started = asyncio.Event()

    async def work(payload: Any) -> None:
        started.set()
        await asyncio.sleep(600)

    with running({"work": work}, db, listen=False):
        job = add(db, "work")
        wait_for(started.is_set)
        cancel(db, job)
        wait_for(ended(db, job), "it was stopped", 30)


def test_notifications_that_anybody_can_send_cost_little(db: Database) -> None:
    """A thousand of them a second, and a job under way all the while."""
    go = threading.Event()

    def work(payload: Any) -> None:
        go.wait(60)

    with running({"work": work}, db) as worker:
        add(db, "work")
        wait_for(lambda: len(worker._runs))
        asked: list[int] = []
        review = worker._protocol.review

        async def counted(*arguments: Any) -> Any:
            asked.append(1)
            return await review(*arguments)

        worker._protocol.review = counted
        flooded = db.value("select clock_timestamp()")
        for n in range(2000):
            db.rows("select pg_notify('jobs:control', %s)", f"not json {n}")
        seconds = db.value("select extract(epoch from clock_timestamp() - %s)", flooded)
        assert len(asked) <= 5 * float(seconds) + 2
        go.set()
