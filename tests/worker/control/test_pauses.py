"""What workers do with pauses: they claim nothing, give back what they prefetched, and wake again."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from graphile_worker.errors import InvalidArgument
from graphile_worker.worker import PauseQueue, PauseTask, context
from support.live import add, once, running, state
from support.pg import Database, wait_for

pytestmark = pytest.mark.majors(13, 18)

WAITING = "select id from graphile_worker.jobs where locked_at is null order by id"


def test_prefetched_jobs_of_a_paused_queue_go_back_and_running_ones_go_on(db: Database) -> None:
    go, ran = threading.Event(), []

    def work(payload: Any) -> None:
        go.wait(60)
        ran.append(context().job.id)

    db.rows("select graphile_worker.set_limit('queue', 'q*', 10)")
    jobs = [add(db, "work", "{}", f", queue_name := 'q{n % 2}'") for n in range(6)]
    with running({"work": work}, db, concurrency=2, prefetch=4) as worker:
        wait_for(lambda: len(worker._fetcher) == 4, "they are prefetched")
        db.rows("select graphile_worker.pause_queue('q1', reason := 'no more')")
        wait_for(lambda: db.column(WAITING) == [jobs[3], jobs[5]], "they went back", 5)
        assert db.column("select attempts from graphile_worker.jobs order by id") == [
            1,
            1,
            1,
            0,
            1,
            0,
        ]
        go.set()
        wait_for(lambda: len(ran) == 4)
        db.rows("select graphile_worker.resume_queue('q1')")
        wait_for(lambda: len(ran) == 6, "they were woken", 5)


def test_without_listen_prefetched_jobs_go_back_as_well(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphile_worker.worker.reviewer.REVIEW_EVERY", 0.2)
    go = threading.Event()

    def work(payload: Any) -> None:
        go.wait(60)

    jobs = [add(db, "work") for _ in range(3)]
    with running({"work": work}, db, concurrency=1, prefetch=2, listen=False) as worker:
        wait_for(lambda: len(worker._fetcher) == 2, "they are prefetched")
        db.rows("select graphile_worker.pause_task('work')")
        wait_for(lambda: db.column(WAITING) == jobs[1:], "they went back")
        go.set()


def test_a_pause_that_ends_wakes_a_worker_that_does_not_poll(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphile_worker.worker.fetcher.FIRST_POLL", 300.0)
    ran: list[int] = []

    async def work(payload: Any) -> None:
        ran.append(context().job.id)

    with running({"work": work}, db, poll_interval=300):
        db.rows("select graphile_worker.pause_all(now() + interval '1 second')")
        job = add(db, "work")
        wait_for(partial(ran.__contains__, job), "it ran after the pause", 30)
        assert db.value("select count(*) from graphile_worker.pauses") == 0


@pytest.mark.parametrize("kind", ["async", "thread"])
@pytest.mark.parametrize(
    ("raised", "scope", "name"),
    [
        (lambda: PauseQueue(for_seconds=60, reason="busy"), "queue", "api"),
        (lambda: PauseTask(timedelta(minutes=1)), "task", "call"),
    ],
    ids=["queue", "task"],
)
def test_a_job_that_pauses_is_returned_unattempted(
    db: Database, kind: str, raised: Any, scope: str, name: str
) -> None:
    def call(payload: Any) -> None:
        raise raised()

    async def call_async(payload: Any) -> None:
        call(payload)

    job = add(db, "call", more=", queue_name := 'api'")
    other = add(db, "call", more=", queue_name := 'api'")
    once(db, {"call": call if kind == "thread" else call_async})
    assert state(db, job)[:3] == (0, None, None)
    assert state(db, other)[:3] == (0, None, None)
    found = db.row("select scope, name, reason, until - paused_at from graphile_worker.pauses")
    reason = "busy" if scope == "queue" else None
    assert found[:3] == (scope, name, reason)
    assert timedelta(seconds=59) < found[3] <= timedelta(seconds=61)
    db.rows(f"select graphile_worker.resume_{scope}(%s)", name)
    done: list[int] = []

    async def fine(payload: Any) -> None:
        done.append(context().job.id)

    once(db, {"call": fine})
    assert done == [job, other]


def test_a_job_without_a_queue_that_pauses_it_fails_and_says_why(db: Database) -> None:
    async def call(payload: Any) -> None:
        raise PauseQueue(60)

    job = add(db, "call")
    once(db, {"call": call})
    attempts, error, *_ = state(db, job)
    assert attempts == 1
    assert error == f"job {job} has no queue to pause: add it with a queue_name, or raise PauseTask"
    assert db.rows("select * from graphile_worker.pauses") == []


@pytest.mark.parametrize(
    "arguments", [{}, {"for_seconds": "60"}, {"for_seconds": float("nan")}, {"until": 5}]
)
def test_a_pause_without_an_end_cannot_be_raised(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        PauseQueue(**arguments)


def test_a_run_once_leaves_what_is_paused(db: Database) -> None:
    async def work(payload: Any) -> None:
        await asyncio.sleep(0)

    job = add(db, "work")
    db.rows("select graphile_worker.pause_task('work')")
    started = time.monotonic()
    once(db, {"work": work})
    assert time.monotonic() - started < 30
    assert state(db, job)[0] == 0
