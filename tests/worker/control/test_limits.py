"""Workers keep limits, together, through kills; they sleep until a rate lets them go on."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from graphile_worker.worker import context
from graphile_worker.worker.database.protocol import Protocol
from graphile_worker.worker.database.statements import Fetched
from support.fleet import Process
from support.live import add, once, running
from support.pg import Database, wait_for
from support.ran import TABLE

pytestmark = pytest.mark.majors(13, 18)


class Counter:
    """How many jobs run, and how many did at most."""

    def __init__(self) -> None:
        self.now = self.most = self.done = 0
        self.lock, self.go = threading.Lock(), threading.Event()
        self.go.set()

    def work(self, payload: Any) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.go.wait(60)
        with self.lock:
            self.now -= 1
            self.done += 1


def test_two_workers_run_no_more_than_the_limit(db: Database) -> None:
    counter = Counter()
    counter.go.clear()
    db.rows("select graphile_worker.set_limit('task', 'work', 3)")
    for _ in range(30):
        add(db, "work")
    with running({"work": counter.work}, db), running({"work": counter.work}, db):
        wait_for(lambda: counter.now == 3, "the slots are filled")
        counter.go.set()
        wait_for(lambda: counter.done == 30, "all are done", 60)
    assert counter.most == 3


def test_the_end_of_a_job_wakes_a_worker_that_does_not_poll(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphile_worker.worker.fetcher.FIRST_POLL", 300.0)
    go, ran = threading.Event(), []

    def one(payload: Any) -> None:
        go.wait(60)

    async def two(payload: Any) -> None:
        ran.append(context().job.id)

    db.rows("select graphile_worker.set_limit('queue', 'q', 2)")
    for _ in range(2):
        add(db, "one", more=", queue_name := 'q'")
    with running({"one": one}, db, poll_interval=300) as first:
        wait_for(lambda: len(first._runs) == 2)
        job = add(db, "two", more=", queue_name := 'q'")
        with running({"two": two}, db, poll_interval=300) as second:
            wait_for(lambda: second._fetcher.is_limited, "it has looked in vain")
            assert ran == []
            go.set()
            wait_for(partial(ran.__contains__, job), "it was woken", 30)


def test_a_job_that_is_added_while_the_slot_becomes_free_is_not_left_lying(db: Database) -> None:
    """The one that has the slot runs other tasks, and does not look for this job."""
    ran: list[int] = []

    async def one(payload: Any) -> None:
        await asyncio.sleep(payload["seconds"])
        ran.append(context().job.id)

    async def two(payload: Any) -> None:
        ran.append(context().job.id)

    db.rows("select graphile_worker.set_limit('queue', 'q', 1)")
    rng = random.Random(5)
    with running({"one": one}, db), running({"two": two}, db):
        for _ in range(25):
            seconds = rng.random() * 0.03
            first = add(db, "one", f'{{"seconds": {seconds}}}', ", queue_name := 'q'")
            time.sleep(seconds + rng.random() * 0.01)
            second = add(db, "two", more=", queue_name := 'q'")
            wait_for(lambda: {first, second} <= set(ran), "both ran", 20)  # noqa: B023


def test_a_worker_sleeps_until_the_next_start_is_allowed(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphile_worker.worker.fetcher.FIRST_POLL", 300.0)
    fetches: list[int] = []
    fetch = Protocol.fetch

    async def counted(*arguments: Any) -> Fetched:
        fetched = await fetch(*arguments)
        fetches.append(len(fetched.rows))
        return fetched

    monkeypatch.setattr(Protocol, "fetch", counted)
    ran: list[int] = []

    async def work(payload: Any) -> None:
        ran.append(context().job.id)

    db.rows("select graphile_worker.set_limit('task', 'work', rate => 5, per => '1 second')")
    for _ in range(10):
        add(db, "work")
    before = db.value("select clock_timestamp()")
    with running({"work": work}, db, poll_interval=300):
        wait_for(lambda: len(ran) == 10, "all ran")
    spent = db.value("select clock_timestamp()") - before
    assert spent > timedelta(seconds=1.8), "nine pauses"
    assert len(fetches) <= 10 * 4, "it does not spin"


def test_a_run_once_ends_where_a_rate_allows_no_more(db: Database) -> None:
    ran: list[int] = []

    async def work(payload: Any) -> None:
        ran.append(context().job.id)

    db.rows("select graphile_worker.set_limit('task', 'work', rate => 2, per => '1 h', burst => 2)")
    for _ in range(5):
        add(db, "work")
    once(db, {"work": work})
    assert len(ran) == 2
    db.rows("select graphile_worker.set_limit('task', 'work', 1)")
    once(db, {"work": work}, concurrency=3)
    assert len(ran) == 5, "a limit of how many run does not end it"


def test_a_worker_that_is_killed_leaves_its_slots_to_others(db: Database, tmp_path: Path) -> None:
    db.rows(TABLE)
    db.rows("select graphile_worker.set_limit('task', 'note', 2)")
    db.rows("select graphile_worker.set_recovery('2 seconds')")
    for _ in range(6):
        add(db, "note", '{"seconds": 0.05}')
    slow = add(db, "note", '{"seconds": 600}', ", priority := -1")
    doomed = Process(db.dsn, tmp_path, seconds=0)
    try:
        wait_for(
            lambda: db.value("select count(*) from public.ran where job_id = %s", slow), "it runs"
        )
    finally:
        doomed.kill()
    db.rows("select graphile_worker.pause_all()")
    db.rows(
        "update graphile_worker._private_jobs set payload = '{\"seconds\": 0.05}' where id = %s",
        slow,
    )
    db.rows("select graphile_worker.resume_all()")
    other = Process(db.dsn, tmp_path, seconds=0)
    try:
        wait_for(lambda: not db.value("select count(*) from graphile_worker.jobs"), "all ended")
    finally:
        other.kill()
    assert db.value(
        "select max((select count(*) from public.ran as b where b.started <= a.started"
        " and coalesce(b.ended, 'infinity') > a.started and b.worker = a.worker)) from public.ran as a"
    ) <= 2  # fmt: skip
