"""How a job ends: what its task raises, returns, and how long it takes."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from graphile_worker import Tasks
from graphile_worker.worker import (
    Discard,
    Event,
    Events,
    Retry,
    RetryAfter,
    Snooze,
    context,
)
from support.live import add, once, state
from support.pg import Database, wait_for

from worker.contexts import alive
from worker.executors import task_functions


def test_a_typed_task_gets_its_arguments_and_a_mismatch_names_the_field(db: Database) -> None:
    tasks, seen = Tasks(), []

    @dataclass
    class Address:
        mail: str

    def send(to: Any, times: int = 1) -> None:
        seen.append((to, times, context().job.id))

    send.__annotations__["to"] = Address
    tasks.task("send")(send)
    good = add(db, "send", '{"to": {"mail": "a@b"}, "_trace": {}}')
    bad = add(db, "send", '{"to": {"mail": 1}}')
    unknown = add(db, "send", '{"to": {"mail": "a"}, "tmies": 2}')
    missing = add(db, "send")
    once(db, tasks)
    assert seen == [(Address("a@b"), 1, good)]
    assert "payload.to.mail: Input should be a valid string" in state(db, bad)[1]
    assert "payload.tmies" in state(db, unknown)[1]
    assert "payload.to: it is missing" in state(db, missing)[1]


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_what_a_task_raises_decides_about_its_job(db: Database, kind: str) -> None:
    def boom(payload: Any) -> None:
        raise {
            "plain": ValueError("no \0 good \ud800"),
            "later": RetryAfter(600, "busy"),
            "never": Discard("closed"),
            "snooze": Snooze(900),
        }[payload["how"]]

    async def aboom(payload: Any) -> None:
        boom(payload)

    jobs = {
        how: add(db, "boom", f'{{"how": "{how}"}}') for how in ("plain", "later", "never", "snooze")
    }
    events, told = Events(), []

    @events.on("job:error", "job:failed", "job:snoozed")
    def tell(event: Event) -> None:
        assert event.job
        told.append((event.job.payload["how"], event.name))

    once(db, {"boom": boom if kind == "thread" else aboom}, events=events)
    assert sorted(told) == [
        ("later", "job:error"), ("never", "job:failed"), ("plain", "job:error"),
        ("snooze", "job:snoozed"),
    ]  # fmt: skip
    attempts, error, locked_by, delay = state(db, jobs["plain"])
    assert (attempts, locked_by, round(delay, 2)) == (1, None, 2.72)
    assert error.startswith("ValueError: no \\x00 good \\ud800")
    attempts, error, _, delay = state(db, jobs["later"])
    assert (attempts, error, round(delay / 10)) == (1, "busy", 60)
    assert state(db, jobs["never"])[:2] == (25, "closed")
    attempts, error, _, delay = state(db, jobs["snooze"])
    assert (attempts, error, round(delay / 10)) == (0, None, 90)


def test_a_policy_says_when_a_job_is_tried_again(db: Database) -> None:
    tasks = Tasks()

    @tasks.task("fails", retry=Retry.delays([100, 200]))
    async def fails() -> None:
        raise ValueError

    job = add(db, "fails")
    for delay in (100, 200, 200):
        db.rows("update graphile_worker._private_jobs set run_at = now()")
        once(db, tasks)
        assert round(state(db, job)[3], 0) == delay


def test_of_a_batch_only_the_elements_that_failed_are_left(db: Database) -> None:
    async def one(element: Any) -> None:
        if element == -4:
            sys.exit(3)
        if element < 0:
            raise ValueError(f"{element} is negative")

    async def batch(payload: list[int]) -> Any:
        return [one(element) for element in payload]

    async def short(payload: list[int]) -> Any:
        return [ValueError()]

    some, _ = add(db, "batch", "[1, -2, 3, -4]"), add(db, "batch", "[1, 2]")
    add(db, "short", "[1, 2]")
    once(db, {"batch": batch, "short": short})
    ((job, payload, error),) = db.rows(
        "select id, payload, last_error from graphile_worker._private_jobs"
    )
    assert (job, payload) == (some, [-2, -4])
    assert error.splitlines() == [
        "2 of 4 elements failed",
        "1: ValueError: -2 is negative",
        "3: TaskCrashed: it raised SystemExit(3)",
    ]


def test_a_task_that_takes_too_long_is_stopped_and_its_late_result_does_nothing(
    db: Database,
) -> None:
    tasks, told = Tasks(), threading.Event()

    @tasks.task("coroutine", timeout=0.2)
    async def coroutine() -> None:
        await asyncio.sleep(60)

    @tasks.task("thread", timeout=0.2)
    def thread() -> None:
        if context().abort.wait(30):
            told.set()

    jobs = [add(db, "coroutine"), add(db, "thread")]
    once(db, tasks)
    for job in jobs:
        attempts, error, locked_by, _ = state(db, job)
        assert (attempts, locked_by) == (1, None)
        assert "was stopped after 0.2 seconds" in error
    assert told.wait(10)


@pytest.mark.majors(18)
def test_a_process_that_takes_too_long_is_killed_with_what_it_started(
    db: Database, tmp_path: Path
) -> None:
    tasks, file = Tasks(), tmp_path / "pids"
    tasks.task("warm", executor="process")(task_functions.process_id.function)
    tasks.task("stuck", executor="process", timeout=1)(task_functions.stuck.function)
    add(db, "warm")
    job = add(db, "stuck", json.dumps({"file": str(file)}))
    once(db, tasks, concurrency=1, executor_processes=1)
    attempts, error, locked_by, _ = state(db, job)
    assert (attempts, locked_by) == (1, None)
    assert error == "task stuck was stopped after 1 seconds"
    wait_for(lambda: not any(alive(int(pid)) for pid in file.read_text().split()))


def test_a_payload_that_cannot_be_decoded_fails_its_own_job_only(db: Database) -> None:
    done: list[Any] = []

    async def task(payload: Any) -> None:
        done.append(payload)

    bad = add(db, "task", '{"n": ' + "9" * 5000 + "}")
    add(db, "task", '{"n": 1}', ", run_at := '-infinity'")
    once(db, {"task": task})
    assert done == [{"n": 1}]
    assert "cannot be decoded" in state(db, bad)[1]
