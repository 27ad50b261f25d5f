"""A schedule adds each of its runs once, whoever calls, and whatever is set or ended meanwhile."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from support.pg import Database, wait_for

from sql.fetch.claims import add, take

pytestmark = pytest.mark.majors(13, 18)

SET = "select graphile_worker.schedule(%s, %s, %s"
RUN = "select runs, next_run_in from graphile_worker.run_schedules()"


def schedule(db: Database, name: str = "s", cron: str = "* * * * *", **options: Any) -> datetime:
    names = "".join(f", {each} => %s" for each in options)
    due: datetime = db.value(f"{SET}{names})", name, "t", cron, *options.values())
    return due


def due_since(db: Database, minutes: int, name: str = "s") -> datetime:
    """Let the schedule have been due so many minutes ago, at a whole minute.

    Not in the last seconds of a minute: another run would fall due while the test looks.
    """
    wait_for(lambda: db.value("select extract(second from clock_timestamp()) < 50"))
    at: datetime = db.value(
        "update graphile_worker._private_schedules set next_runs[1] ="
        " date_trunc('minute', clock_timestamp()) - %s * interval '1 minute' where name = %s"
        " returning next_runs[1]",
        minutes, name,
    )  # fmt: skip
    return at


def run(db: Database) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = db.value("select runs from graphile_worker.run_schedules()")
    return runs


def test_a_schedule_is_shown_with_its_next_three_runs(db: Database) -> None:
    due = schedule(
        db, "nightly", "30 1 * * MON-FRI", tz="Europe/London", payload='{"a": 1}', queue_name="q",
        priority=3, max_attempts=2, job_key="k", flags=["f"], catch_up="2 days", overlap="skip",
    )  # fmt: skip
    shown = db.row("select * from graphile_worker.schedules")
    assert shown[:13] == (
        "nightly", "t", "30 1 * * MON-FRI", "Europe/London", {"a": 1}, "q", 3, 2, "k", ["f"],
        timedelta(days=2), "skip", False,
    )  # fmt: skip
    runs = db.column("select * from graphile_worker.next_runs('30 1 * * 1-5', 'Europe/London', 3)")
    assert shown[13:] == (runs, None, None, None)
    assert due == runs[0]
    (seconds,) = db.column(
        "select extract(epoch from next_run_in) from graphile_worker.run_schedules()"
    )
    assert abs(float(seconds) - (due - db.value("select clock_timestamp()")).total_seconds()) < 5
    assert take(db) == []


def test_a_run_that_is_due_adds_its_job_once(db: Database) -> None:
    schedule(
        db, payload='{"a": 1}', queue_name="q", priority=3, max_attempts=2, job_key="k", flags=["f"]
    )  # fmt: skip
    at = due_since(db, 0)
    (ran,) = run(db)
    job = db.row(
        "select id, task_identifier, queue_name, priority, max_attempts, key, flags, run_at"
        " from graphile_worker.jobs"
    )
    assert job[1:] == ("t", "q", 3, 2, "k", {"f": True}, at)
    assert (ran["name"], datetime.fromisoformat(ran["at"]), ran["job_id"]) == ("s", at, job[0])
    payload = db.value("select payload from graphile_worker._private_jobs")
    stamp = at.astimezone().astimezone(tz=None)
    assert payload["a"] == 1
    assert datetime.fromisoformat(payload["_cron"]["ts"].replace("Z", "+00:00")) == stamp
    assert payload["_cron"]["backfilled"] == ran["backfilled"]
    last = db.row(
        "select last_run_at, last_job_id, next_runs[1] > last_run_at from graphile_worker.schedules"
    )
    assert last == (at, job[0], True)
    assert run(db) == []
    assert db.value("select count(*) from graphile_worker.jobs") == 1


def test_however_many_call_at_once_each_run_comes_once(db: Database) -> None:
    for n in range(5):
        schedule(db, f"s{n}", catch_up="1 hour")
    first = db.value("select date_trunc('minute', clock_timestamp()) - interval '20 minutes'")
    db.rows("update graphile_worker._private_schedules set next_runs[1] = %s", first)
    callers = [db.connect() for _ in range(6)]
    barrier = threading.Barrier(len(callers))

    def call(conn: psycopg.Connection[Any]) -> None:
        barrier.wait()
        for _ in range(3):
            conn.execute(RUN)

    threads = [threading.Thread(target=call, args=(conn,)) for conn in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = first + timedelta(minutes=20)
    counts = db.rows(
        "select run_at, count(*) from graphile_worker.jobs where run_at <= %s group by 1", last
    )
    assert len(counts) == 21
    assert {count for _, count in counts} == {5}


@pytest.mark.parametrize(("catch_up", "least"), [("0", 1), ("35 minutes", 4), ("10 hours", 7)])
def test_missed_runs_are_caught_up_as_far_back_as_asked(
    db: Database, catch_up: str, least: int
) -> None:
    schedule(db, cron="*/10 * * * *", catch_up=catch_up)
    minute = db.value("select extract(minute from clock_timestamp())::integer")
    due_since(db, minute % 10 + 60)
    runs = run(db)
    # of the last five minutes at least, as a worker's crontab
    expected = {1: 1 if minute % 10 <= 5 else 0, 4: 4, 7: 7}[least]
    assert expected - 1 <= len(runs) <= expected + 1
    assert all(each["backfilled"] for each in runs[:-1])
    ats = [each["at"] for each in runs]
    assert ats == sorted(ats)


@pytest.mark.parametrize("state", ["waiting", "running", "failed", "ended"])
@pytest.mark.parametrize("overlap", ["allow", "skip", "replace"])
def test_a_run_whose_predecessor_has_not_ended_overlaps_as_asked(
    db: Database, overlap: str, state: str
) -> None:
    db.rows("select * from graphile_worker.heartbeat('w')")
    schedule(db, overlap=overlap)
    due_since(db, 0)
    first = run(db)[-1]["job_id"]
    db.rows("delete from graphile_worker._private_jobs where id <> %s", first)
    if state == "failed":
        db.rows("select graphile_worker.permanently_fail_jobs(array[%s::bigint])", first)
    elif state != "waiting":
        assert take(db) == [first]
    if state == "ended":
        db.rows("select * from graphile_worker.finish_jobs('w', array[%s::bigint])", first)
    due_since(db, 0)
    second = run(db)[-1]["job_id"]
    left = db.column("select id from graphile_worker.jobs order by id")
    if overlap == "skip" and state in ("waiting", "running"):
        assert second is None
        assert left == [first]
    elif overlap == "replace" and state in ("waiting", "running"):
        assert left == ([second] if state == "waiting" else [first, second])
        verdicts = db.column("select reason from graphile_worker.review_jobs('w')")
        assert verdicts == ([] if state == "waiting" else ['schedule "s" has run again'])
    else:
        assert left == ([second] if state == "ended" else [first, second])


def test_a_paused_schedule_leaves_its_runs_out_and_catches_up_as_asked(db: Database) -> None:
    schedule(db), schedule(db, "other", catch_up="30 minutes")
    for name in ("s", "other"):
        db.rows("select graphile_worker.pause_schedule(%s)", name)
        due_since(db, 10, name)
    assert run(db) == []
    assert db.value("select next_run_in from graphile_worker.run_schedules()") is None
    assert db.column("select is_paused from graphile_worker.schedules") == [True, True]
    assert db.value("select graphile_worker.resume_schedule('s')") > db.value(
        "select clock_timestamp()"
    )
    assert db.value("select graphile_worker.resume_schedule('other')") < db.value(
        "select clock_timestamp()"
    )
    assert {each["name"] for each in run(db)} == {"other"}
    assert db.value("select count(*) from graphile_worker.jobs") >= 10


def test_a_schedule_runs_now_beside_its_runs(db: Database) -> None:
    due = schedule(db, cron="@yearly", overlap="skip")
    job = db.value("select graphile_worker.run_schedule_now('s')")
    assert take(db) == [job]
    assert db.value("select graphile_worker.run_schedule_now('s')") is None
    shown = db.row("select next_runs[1], last_run_at, last_job_id from graphile_worker.schedules")
    assert shown == (due, None, job)


def test_a_schedule_that_is_set_again_goes_on_where_it_was(db: Database) -> None:
    schedule(db)
    at = due_since(db, 1)
    assert schedule(db, payload='{"b": 2}') == at, "a run that is due is not lost"
    assert len(run(db)) >= 1
    after = db.value("select next_runs[1] from graphile_worker.schedules")
    assert db.value("select graphile_worker.unschedule('s')") is True
    assert db.value("select graphile_worker.unschedule('s')") is False
    assert db.rows("select * from graphile_worker.schedules") == []
    assert schedule(db) == after, "nor is one doubled"
    due_since(db, 3)
    db.rows("select graphile_worker.unschedule('s')")
    assert run(db) == []
    db.rows(
        "update graphile_worker._private_schedules set unscheduled_at = now() - interval '1 hour'"
    )
    assert schedule(db) > db.value("select now()"), "one that ended an hour ago begins anew"
    assert schedule(db, cron="@hourly") > db.value("select now()")
    db.rows(
        "update graphile_worker._private_schedules set unscheduled_at = now() - interval '2 days'"
    )
    db.rows("select * from graphile_worker.release_stale_locks()")
    assert db.value("select count(*) from graphile_worker._private_schedules") == 0


def test_deploys_that_end_and_set_schedules_neither_double_nor_lose_a_run(db: Database) -> None:
    """Two instances do so at their start while two workers add what is due."""
    schedule(db, catch_up="1 hour")
    stop = threading.Event()
    errors: list[BaseException] = []

    def repeat(*statements: str) -> None:
        conn = db.connect()
        try:
            while not stop.is_set():
                for statement in statements:
                    conn.execute(statement.encode())
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=repeat, args=statements)
        for statements in [
            ("select graphile_worker.unschedule('s')",
             "select graphile_worker.schedule('s', 't', '* * * * *', catch_up => '1 hour')"),
            ("select graphile_worker.unschedule('s')",
             "select graphile_worker.schedule('s', 't', '* * * * *', catch_up => '1 hour')"),
            (RUN,), (RUN,),
        ]
    ]  # fmt: skip
    main = db.connect()
    for thread in threads:
        thread.start()
    try:
        for ago in range(40, 0, -1):
            # The clock cannot be moved, so the schedule is: these runs are due, and then the next.
            main.execute(
                "update graphile_worker._private_schedules set next_runs = array["
                " date_trunc('minute', clock_timestamp()) - %s * interval '1 minute']",
                (ago,),
            )
            while not main.execute(
                "select from graphile_worker._private_schedules where next_runs[1] > clock_timestamp()"
            ).rowcount:
                assert errors == []
            counts = [
                count
                for (count,) in main.execute(
                    "with gone as (delete from graphile_worker._private_jobs returning run_at)"
                    " select count(*) from gone group by run_at"
                )
            ]
            assert set(counts) == {1}, "a run came twice"
            assert len(counts) in (ago + 1, ago + 2), "a run was lost"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []


def test_a_job_that_is_refused_is_shown_and_the_schedule_goes_on(db: Database) -> None:
    schedule(db), schedule(db, "other")
    db.rows("update graphile_worker._private_schedules set job_key = '' where name = 's'")
    due_since(db, 0), due_since(db, 0, "other")
    assert {each["name"] for each in run(db)} == {"other"}
    errors = db.rows(
        "select name, last_error, next_runs[1] > now() from graphile_worker.schedules order by 1"
    )
    assert errors == [("other", None, True), ("s", "Job key is empty", True)]


@pytest.mark.parametrize(
    ("call", "message", "code"),
    [
        ("schedule('', 't', '@daily')", "Name of a schedule is null, empty or too long", "GWBCR"),
        ("schedule(null, 't', '@daily')", "Name of a schedule is null", "GWBCR"),
        ("schedule('s', '', '@daily')", "Task identifier is empty", "GWBID"),
        ("schedule('s', null, '@daily')", "Task identifier is null", "GWBID"),
        ("schedule('s', 't', 'at noon')", "Schedule does not have five fields", "GWBCR"),
        ("schedule('s', 't', null)", "Schedule does not have five fields", "GWBCR"),
        ("schedule('s', 't', '61 * * * *')", "minute", "GWBCR"),
        ("schedule('s', 't', '@daily', tz => 'Mars')", 'Time zone is unknown: "Mars"', "GWBCR"),
        ("schedule('s', 't', '@daily', tz => null)", "Time zone is unknown", "GWBCR"),
        ("schedule('s', 't', '@daily', payload => '[]')", "is not an object but: array", "GWBCR"),
        ("schedule('s', 't', '@daily', payload => '{\"a\": \"\\u0000\"}')", "jsonb cannot", "GWBCR"),
        ("schedule('s', 't', '@daily', priority => 40000)", "Priority is out of range", "GWBPR"),
        ("schedule('s', 't', '@daily', job_key => '')", "Job key is empty", "GWBJK"),
        ("schedule('s', 't', '@daily', overlap => 'maybe')", "Overlap of a schedule is", "GWBCR"),
        ("schedule('s', 't', '@daily', catch_up => '-1 s')", "Catch up of a schedule", "GWBCR"),
        ("schedule('s', 't', '@daily', catch_up => null)", "Catch up of a schedule", "GWBCR"),
        ("pause_schedule('s')", 'There is no schedule "s"', "GWBCR"),
        ("resume_schedule('s')", 'There is no schedule "s"', "GWBCR"),
        ("run_schedule_now(null)", "There is no schedule", "GWBCR"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(db: Database, call: str, message: str, code: str) -> None:
    with pytest.raises(psycopg.Error, match=message) as caught:
        db.rows(f"select graphile_worker.{call}")
    assert caught.value.sqlstate == code
    assert caught.value.diag.message_hint
    assert db.value("select count(*) from graphile_worker._private_schedules") == 0


def test_a_null_payload_is_an_empty_one(db: Database) -> None:
    schedule(db, payload=None)
    due_since(db, 0)
    run(db)
    assert list(db.value("select payload from graphile_worker._private_jobs")) == ["_cron"]
    assert add(db) > 0
