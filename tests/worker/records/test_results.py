"""What tasks return reaches those who wait for it, if and only if the job is completed."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from datetime import timedelta
from typing import Any

import pytest
from graphile_worker import WorkerUtils, aio
from graphile_worker.client.records import waiting
from graphile_worker.errors import (
    JobCancelled,
    JobFailed,
    ResultTimeout,
    ResultUnavailable,
)
from graphile_worker.retry import Discard
from support.live import add, once, running
from support.pg import Database, wait_for

pytestmark = pytest.mark.majors(13, 18)


@dataclasses.dataclass
class Point:
    x: int
    y: int


def double(payload: Any) -> Any:
    return {"doubled": payload["n"] * 2}


async def point(payload: Any) -> Any:
    return Point(1, 2)


async def nothing(payload: Any) -> None:
    pass


async def boom(payload: Any) -> None:
    raise ValueError("no such thing: é")


async def give_up(payload: Any) -> None:
    raise Discard("not today")


async def odd(payload: Any) -> Any:
    return object()


async def big(payload: Any) -> Any:
    return "x" * 100_000


async def each(payload: Any) -> Any:
    return [n * 2 for n in payload]


TASKS = {
    "double": double, "point": point, "nothing": nothing, "boom": boom, "give_up": give_up,
    "odd": odd, "big": big, "each": each,
}  # fmt: skip


def test_the_result_of_each_kind_of_task_is_waited_for(db: Database) -> None:
    with WorkerUtils(db.dsn) as utils, running(TASKS, db):
        utils.keep_history()
        wanted = {
            add(db, "double", '{"n": 21}'): {"doubled": 42},
            add(db, "point"): {"x": 1, "y": 2},
            add(db, "nothing"): None,
            add(db, "each", "[1, 2]"): [2, 4],
        }
        for job, result in wanted.items():
            assert utils.handle(job).result(timeout=60) == result
        records = {record.id: record for record in utils.job_history()}
        assert {job: records[job].result for job in wanted} == wanted
        assert all(record.state == "completed" for record in records.values())
        duration = records[next(iter(wanted))].duration
        assert duration is not None
        assert duration < timedelta(seconds=30)


def test_errors_are_raised_with_the_traceback_that_the_worker_saw(db: Database) -> None:
    with WorkerUtils(db.dsn) as utils, running(TASKS, db):
        utils.keep_history()
        job = add(db, "boom", more=", max_attempts => 1")
        with pytest.raises(JobFailed, match=r"ValueError: no such thing: é") as raised:
            utils.handle(job).result(60)
        assert 'raise ValueError("no such thing' in str(raised.value)
        assert raised.value.job_id == job
        job = add(db, "give_up")
        with pytest.raises(JobFailed, match="not today"):
            utils.handle(job).result(60)
        record = utils.find_job(job)
        assert record is not None
        assert [a.outcome for a in record.attempt_log] == ["discarded"]
        (ended,) = utils.job_history(states=["discarded"])
        assert ended.id == job
        for task, why in (
            ("odd", "result cannot be sent as JSON: object is nothing that JSON knows"),
            ("big", "The result has 100002 bytes, and max_bytes of keep_history is 65536"),
        ):
            with pytest.raises(ResultUnavailable, match=why):
                utils.handle(add(db, task)).result(60)


def test_a_job_is_waited_for_until_it_ends_whatever_happens_on_the_way(db: Database) -> None:
    tries: list[int] = []

    async def flaky(payload: Any) -> str:
        tries.append(1)
        if len(tries) < 2:
            raise ValueError("not yet")
        return "at last"

    with WorkerUtils(db.dsn) as utils:
        utils.keep_history()
        # in a transaction that is not committed yet
        conn = db.connect(autocommit=False)
        job = utils.add_job("flaky", run_at=timedelta(seconds=0), conn=conn)
        with pytest.raises(ResultTimeout, match=rf"job {job.id} has not ended within 0.2 seconds"):
            utils.handle(job).result(0.2)
        found: list[Any] = []
        waits = threading.Thread(target=lambda: found.append(utils.handle(job).result(60)))
        waits.start()
        conn.commit()
        with running({"flaky": flaky}, db, fail_delay=0):
            wait_for(
                lambda: db.value(
                    "select attempts = 1 and locked_at is null from graphile_worker.jobs"
                )
            )
            assert not found
            db.rows("select graphile_worker.reschedule_jobs(array[%s::bigint], now())", job.id)
            waits.join(60)
        assert found == ["at last"]


def test_who_cancels_is_told_to_who_waits(db: Database) -> None:
    with WorkerUtils(db.dsn) as utils:
        utils.keep_history()
        job = add(db, "nothing")
        utils.cancel_jobs([job], "the customer is gone")
        with pytest.raises(JobCancelled, match="Cancelled by postgres: the customer is gone"):
            utils.handle(job).result(60)


def test_a_result_that_will_never_come_is_not_waited_for(db: Database) -> None:
    with WorkerUtils(db.dsn) as utils:
        job = add(db, "nothing")
        with pytest.raises(ResultUnavailable, match="keep_history"):
            utils.handle(job).result(60)
        utils.keep_history()
        failed: list[BaseException] = []

        def wait() -> None:
            try:
                utils.handle(job).result(60)
            except BaseException as error:
                failed.append(error)

        waits = threading.Thread(target=wait)
        waits.start()
        seen = waiting.listener(db.dsn, "graphile_worker")._seen
        wait_for(lambda: job in seen)
        db.rows("delete from graphile_worker._private_jobs")  # as Node's workers do
        waits.join(60)
        assert isinstance(failed[0], ResultUnavailable)
        assert "without a record" in str(failed[0])


def test_many_wait_on_one_connection_and_it_is_closed_after_them(db: Database) -> None:
    sessions = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and application_name = 'graphile_worker results'"
    )

    async def body() -> None:
        async with aio.WorkerUtils(db.dsn) as utils:
            await utils.keep_history()
            jobs = await utils.add_jobs([("double", {"n": n}) for n in range(200)])
            waits = [asyncio.ensure_future(utils.handle(job).result(60)) for job in jobs]
            await asyncio.sleep(0)
            with running(TASKS, db):
                results = await asyncio.gather(*waits)
            assert results == [{"doubled": n * 2} for n in range(200)]
            assert db.value(sessions) == 1

    asyncio.run(body())
    wait_for(lambda: db.value(sessions) == 0, "it was closed")
    assert db.value("select count(*) from graphile_worker._private_result_waits") == 0


def test_a_notification_wakes_who_waits_and_the_end_of_its_session_does_no_harm(
    db: Database,
) -> None:
    """With a poll that never comes, only notifications answer."""
    with WorkerUtils(db.dsn) as utils, running(TASKS, db):
        utils.keep_history()
        assert utils.handle(add(db, "nothing")).result(60) is None
        handle = utils.handle(add(db, "nothing", more=", run_at => now() + interval '1 day'"))
        found: list[Any] = []
        waits = threading.Thread(target=lambda: found.append(handle.result(60)))
        waits.start()
        wait_for(lambda: db.value("select count(*) from graphile_worker._private_result_waits"))
        db.rows(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            " and application_name = 'graphile_worker results'"
        )
        db.rows("notify \"jobs:result\", 'what'")
        db.rows("select graphile_worker.reschedule_jobs(array[%s::bigint], now())", handle.id)
        waits.join(60)
        assert found == [None]


def test_nobody_is_notified_where_nobody_waits(db: Database) -> None:
    listener = db.connect()
    listener.execute('listen "jobs:result"')
    db.rows("select graphile_worker.keep_history()")
    add(db, "nothing")
    once(db, TASKS)
    assert list(listener.notifies(timeout=0)) == []
    db.rows("select graphile_worker.watch_results('me')")
    job = add(db, "nothing")
    once(db, TASKS)
    (told,) = listener.notifies(timeout=5, stop_after=1)
    assert told.payload == f"[{job}]"


def test_a_producer_needs_no_more_than_to_enqueue(db: Database) -> None:
    role = f"{db.name}_clerk"
    db.rows(f"create role {role} login")
    try:
        db.rows("select graphile_worker.grant_access(%s, 'enqueue')", role)
        db.rows("select graphile_worker.keep_history()")
        with WorkerUtils(f"{db.dsn} user={role}") as utils, running(TASKS, db):
            job = utils.add_job("double", {"n": 1})
            assert utils.handle(job).result(60) == {"doubled": 2}
            with pytest.raises(Exception, match="admin"):
                utils.find_job(job.id)
    finally:
        db.rows(f"drop owned by {role}")
        db.rows(f"drop role {role}")


def test_secrets_are_left_out_of_what_is_stored(db: Database) -> None:
    def redact(what: str, value: Any, job: Any) -> Any:
        if job.payload.get("broken"):
            raise RuntimeError("oh")
        return value.replace("secret", "***") if what == "error" else {**value, "token": "***"}

    async def sign_in(payload: Any) -> Any:
        if payload.get("fails"):
            raise ValueError("the secret is wrong")
        return {"token": "secret", "user": 1}

    db.rows("select graphile_worker.keep_history()")
    jobs = [
        add(db, "sign_in", payload, ", max_attempts => 1")
        for payload in ("{}", '{"fails": 1}', '{"broken": 1}', '{"broken": 1, "fails": 1}')
    ]
    once(db, {"sign_in": sign_in}, redact=redact)
    rows = db.rows(
        "select job_id, result, result_problem, error from graphile_worker.job_history order by 1"
    )
    assert rows[0] == (jobs[0], {"token": "***", "user": 1}, None, None)
    assert "the *** is wrong" in rows[1][3]
    assert rows[2][1:3] == (None, "The result could not be recorded: RuntimeError")
    assert rows[3][3] == "ValueError (redaction failed)"
    assert "secret" not in str(db.rows("select last_error from graphile_worker.jobs"))


def test_results_that_the_database_cannot_hold_are_escaped(db: Database, server: Any) -> None:
    with server.admin() as admin:
        name = f"{db.name}_latin"
        admin.execute(f"create database {name} template template0 encoding latin1 locale 'C'")
    latin = Database(server.dsn, name, server.major)
    try:
        latin.rows("create extension graphile_worker")
        latin.rows("select graphile_worker.keep_history()")

        async def euro(payload: Any) -> Any:
            return {"price": "5 € 😀"}

        job = add(latin, "euro")
        with running({"euro": euro}, latin, dsn=latin.dsn), WorkerUtils(latin.dsn) as utils:
            assert utils.handle(job).result(60) == {"price": "5 € 😀"}
    finally:
        latin.close()
        with server.admin() as admin:
            admin.execute(f"drop database {name} with (force)")
