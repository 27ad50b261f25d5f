"""Pausing, limiting, cancelling and scheduling from Python, on both faces."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from graphile_worker import Limit, Pause, Schedule, errors
from support.pg import Database

from client.faces import Face, Utils
from client.rows import HOUR, lock

pytestmark = pytest.mark.majors(13, 18)

SOON = datetime(2099, 1, 2, tzinfo=UTC)


def test_what_is_paused_is_listed_and_resumed(utils: Utils, role: str) -> None:
    utils.pause_queue("q-*", until=HOUR, reason="é")
    utils.pause_task("t", until=SOON)
    utils.pause_all()
    everything, queue, task = utils.pauses()
    assert everything == Pause("all", "*", None, None, everything.paused_at, role)
    assert (queue.scope, queue.name, queue.reason) == ("queue", "q-*", "é")
    assert abs(queue.until - queue.paused_at - HOUR) < timedelta(seconds=5)
    assert (task.name, task.until) == ("t", SOON)
    assert [utils.resume_queue("q-*"), utils.resume_queue("q-*")] == [True, False]
    assert [utils.resume_task("t"), utils.resume_task("t")] == [True, False]
    assert [utils.resume_all(), utils.resume_all()] == [True, False]
    assert utils.pauses() == []


def test_limits_are_set_listed_and_removed(utils: Utils, db: Database) -> None:
    utils.set_limit("queue", "q*", max_running=2)
    utils.set_limit("task", "t", rate=10, per=timedelta(milliseconds=1500), burst=4)
    utils.add_job("t", queue_name="q")
    db.rows("select from graphile_worker.get_jobs('w')")
    assert utils.limits() == [
        Limit("queue", "q*", 2, None, None, None, 1),
        Limit("task", "t", None, 10, timedelta(seconds=1.5), 4, 0),
    ]
    assert [utils.remove_limit("task", "t"), utils.remove_limit("task", "t")] == [True, False]


@pytest.mark.majors(18)
def test_a_limit_that_finds_no_gap_says_so_and_changes_nothing(utils: Utils, db: Database) -> None:
    adding = db.connect(autocommit=False)
    adding.execute("select graphile_worker.add_job('t')")
    with pytest.raises(errors.Busy, match="left no gap"):
        utils.set_limit("task", "t", max_running=1)
    utils.set_limit("task", "t", rate=1, per=HOUR)  # which counts nothing, and waits for nobody
    assert [each.max_running for each in utils.limits()] == [None]
    adding.rollback()


def test_jobs_are_cancelled(utils: Utils, db: Database, role: str) -> None:
    db.rows("select * from graphile_worker.heartbeat('w')")
    running, waiting = utils.add_job("t"), utils.add_job("t")
    lock(db, running)
    ids = [running.id, waiting.id, 10**12]
    assert utils.cancel_jobs(ids, "why") == dict(
        zip(ids, ["cancelling", "cancelled", "missing"], strict=True)
    )
    assert utils.get_job(running.id).last_error == f"Cancelled by {role}: why"
    assert utils.cancel_jobs([]) == {}


def test_a_schedule_is_set_listed_paused_run_and_ended(utils: Utils) -> None:
    due = utils.schedule(
        "s", "t", "0 4 * * MON", tz="Europe/London", payload={"a": [1, "é"]}, queue_name="q",
        priority=1, max_attempts=2, job_key="k", flags=["f"], catch_up=timedelta(days=2),
        overlap="replace",
    )  # fmt: skip
    (schedule,) = utils.schedules()
    assert schedule == Schedule(
        "s", "t", "0 4 * * MON", "Europe/London", {"a": [1, "é"]}, "q", 1, 2, "k", ["f"],
        timedelta(days=2), "replace", False, schedule.next_runs, None, None, None,
    )  # fmt: skip
    assert schedule.next_runs[0] == due
    utils.pause_schedule("s")
    assert utils.schedules()[0].is_paused
    assert utils.resume_schedule("s") == due
    job = utils.run_schedule_now("s")
    assert utils.get_job("k").id == job
    assert utils.schedule("never", "t", "0 0 31 6 *") is None
    assert [utils.unschedule("s"), utils.unschedule("s")] == [True, False]
    with pytest.raises(errors.InvalidCrontab, match='There is no schedule "s"'):
        utils.run_schedule_now("s")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda u: u.pause_queue(None), errors.InvalidControl, "name of the queue is None"),
        (lambda u: u.pause_queue("a\0"), errors.InvalidControl, "NUL"),
        (lambda u: u.pause_queue(""), errors.InvalidControl, "Name of the queue is null or empty"),
        (lambda u: u.pause_task("t", until=5), errors.InvalidRunAt, "until|run_at"),
        (lambda u: u.pause_task("t", until=datetime(2099, 1, 1)), errors.InvalidRunAt, "zone"),
        (lambda u: u.pause_all(until=-HOUR), errors.InvalidControl, "would end before it begins"),
        (lambda u: u.pause_all(reason=b"x"), errors.InvalidControl, "reason is b'x'"),
        (lambda u: u.resume_task(7), errors.InvalidControl, "name of the task is 7"),
        (lambda u: u.set_limit("job", "x", max_running=1), errors.InvalidControl, "Scope is unknown"),
        (lambda u: u.set_limit("task", "x"), errors.InvalidControl, "limits nothing"),
        (lambda u: u.set_limit("task", "x", max_running=1.5), errors.InvalidControl, "max_running is 1.5"),
        (lambda u: u.set_limit("task", "x", max_running=True), errors.InvalidControl, "max_running is True"),
        (lambda u: u.set_limit("task", "x", max_running=2**40), errors.InvalidControl, "max_running is"),
        (lambda u: u.set_limit("task", "x", rate=1, per=60), errors.InvalidControl, "per is 60"),
        (lambda u: u.set_limit("task", "x", rate=1), errors.InvalidControl, "do not go together"),
        (lambda u: u.remove_limit("queue", None), errors.InvalidControl, "name of the queue is None"),
        (lambda u: u.cancel_jobs("12"), errors.InvalidFilter, "not a list of job ids"),
        (lambda u: u.cancel_jobs([1], 5), errors.InvalidControl, "reason is 5"),
        (lambda u: u.schedule("s", "t", "x"), errors.InvalidCrontab, "five fields"),
        (lambda u: u.schedule("s", "t", None), errors.InvalidControl, "cron expression is None"),
        (lambda u: u.schedule("s", "t", "@daily", payload=[1]), errors.InvalidCrontab, "array"),
        (lambda u: u.schedule("s", "t", "@daily", payload={1, 2}), errors.InvalidCrontab, "array"),
        (lambda u: u.schedule("s", "t", "@daily", catch_up=5), errors.InvalidCrontab, "catch_up is 5"),
        (lambda u: u.schedule("s", "t", "@daily", overlap="x"), errors.InvalidCrontab, "Overlap"),
        (lambda u: u.schedule("s", "", "@daily"), errors.InvalidIdentifier, "empty"),
        (lambda u: u.schedule("s", "t", "@daily", priority=10**6), errors.InvalidPriority, "range"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named_and_changes_nothing(
    utils: Utils, call: Callable[[Any], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(utils)
    assert (utils.pauses(), utils.limits(), utils.schedules()) == ([], [], [])


def test_a_role_needs_the_level_of_each_verb(face: Face, db: Database) -> None:
    role = f"{db.name}_observer"
    db.rows(f"create role {role} login")
    try:
        db.rows("select graphile_worker.grant_access(%s, 'observe')", role)
        with face.utils(f"{db.dsn} user={role}") as utils:
            assert (utils.pauses(), utils.limits(), utils.schedules()) == ([], [], [])
            for verb, *arguments in (
                ("pause_queue", "q"), ("remove_limit", "task", "t"), ("cancel_jobs", [1]),
                ("schedule", "s", "t", "@daily"),
            ):  # fmt: skip
                with pytest.raises(errors.AccessDenied, match="needs the access level admin"):
                    getattr(utils, verb)(*arguments)
    finally:
        db.rows(f"drop owned by {role}")
        db.rows(f"drop role {role}")


def test_in_the_callers_transaction_nothing_is_committed(face: Face, db: Database) -> None:
    conn = face.connect(db.dsn)
    with face.utils(db.dsn) as utils:
        utils.pause_queue("q", conn=conn)
        utils.set_limit("task", "t", rate=1, per=HOUR, conn=conn)
        utils.schedule("s", "t", "@daily", conn=conn)
        assert len(utils.pauses(conn=conn)) == 1
        face.run(conn.rollback())
        assert (utils.pauses(), utils.limits(), utils.schedules()) == ([], [], [])
    face.run(conn.close())
    assert psycopg.__version__
