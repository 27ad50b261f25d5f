"""The queue of a test: its jobs are matched, run, and moved through time."""

from __future__ import annotations

import pytest
from support.pg import Database

from testing.suite import Suite

pytestmark = pytest.mark.majors(18)

pytest_plugins = ["pytester"]


TASKS = """
    from datetime import UTC, datetime, timedelta
    import pytest
    from graphile_worker import Tasks

    sent = []
    tasks = Tasks()

    @tasks.task("send_email", queue_name="emails")
    def send_email(to: str):
        if to == "nobody":
            raise ValueError("no such address")
        sent.append(to)
"""


def test_jobs_are_matched_by_part_of_their_payload_and_by_their_options(suite: Suite) -> None:
    suite.passes(
        TASKS
        + """
    import dataclasses
    from unittest.mock import ANY
    from uuid import UUID

    @dataclasses.dataclass
    class Order:
        id: UUID
        lines: list

    def test_it(queue):
        tasks.bind(queue.utils)
        send_email.with_options(
            job_key="k", priority=3, max_attempts=5, flags=["slow"], run_at=timedelta(hours=1)
        ).add("ann")
        queue.add_job("ship", {"order": Order(UUID(int=1), [{"n": 1, "m": 2}, {"n": 2}]), "by": "post"})
        queue.add_job("ship", {"order": None})

        (job,) = queue.assert_enqueued(
            send_email, {"to": "ann"}, queue_name="emails", job_key="k", priority=3,
            max_attempts=5, flags={"slow"}, run_at=timedelta(hours=1), state="scheduled",
            exact=True, times=1,
        )
        assert job.key == "k"
        queue.assert_enqueued(send_email, run_at=datetime.now(UTC) + timedelta(hours=1))
        queue.assert_enqueued("ship", times=2, queue_name=None, job_key=None)
        queue.assert_enqueued("ship", {"order": {"id": UUID(int=1), "lines": [{"n": 1}, {"n": ANY}]}})
        queue.assert_enqueued("ship", {"by": "post"}, times=1)
        queue.assert_enqueued("ship", times=0, state="failed")

        queue.assert_not_enqueued("ship", {"by": "post"}, exact=True)
        queue.assert_not_enqueued("ship", {"order": False})
        queue.assert_not_enqueued("bill")
        queue.assert_not_enqueued(send_email, run_at=timedelta(hours=1, minutes=1))
        queue.assert_enqueued(
            send_email, run_at=timedelta(hours=1, minutes=1), within=timedelta(minutes=2)
        )
    """
    )


def test_the_trace_of_a_payload_is_none_of_its_members(suite: Suite) -> None:
    suite.passes("""
        def test_it(queue):
            queue.add_job("ship", {"order": 1, "_trace": {"traceparent": "..."}})
            queue.assert_enqueued("ship", {"order": 1}, exact=True)
            queue.assert_enqueued("ship", {"_trace": {}})
    """)


def test_a_missing_job_shows_the_nearest_and_what_is_there(suite: Suite) -> None:
    said = suite.fails("""
        def test_it(queue):
            queue.add_job("ship", {"order": {"id": 1}}, queue_name="parcels")
            queue.add_job("send_email", {"to": "ann"})
            queue.assert_enqueued("ship", {"order": {"id": 2}, "by": "post"}, queue_name="letters")
    """)
    assert said.splitlines()[:9] == [
        "AssertionError: there is no job of 'ship' with {'order': {'id': 2}, 'by': 'post'},"
        " queue_name 'letters'",
        "nearest is job 1 of 'ship':",
        "payload.order.id is 1: wanted 2",
        "payload.by is missing: wanted 'post'",
        "queue_name is 'parcels': wanted 'letters'",
        "in the queue: 2",
        "job 1 ship {'order': {'id': 1}}, queue 'parcels', ready",
        "job 2 send_email {'to': 'ann'}, ready",
    ]


def test_what_is_wrong_is_said(suite: Suite) -> None:
    suite.passes("""
        from datetime import datetime, timedelta
        import pytest

        CASES = [
            ("queue.assert_enqueued('bill')",
             "there is no job of 'bill'|nearest is job 1 of 'ship':|  task is 'ship': wanted 'bill'|"),
            ("queue.assert_enqueued('ship', times=2)",
             "there are 1, not 2, of: job of 'ship'|in the queue: 1|  job 1 ship {'n': 1}, in "),
            ("queue.assert_enqueued('ship', times=0)", "there are 1, not 0, of: job of 'ship'|"),
            ("queue.assert_enqueued('bill', times=2)", "there is no job of 'bill'|nearest"),
            ("queue.assert_not_enqueued('ship')", "there is a job of 'ship'|in the queue: 1|  job 1"),
            ("queue.assert_not_enqueued()", "there is a job|in the queue: 1|  job 1 ship"),
            ("queue.assert_enqueued('ship', {'n': True})", "|  payload.n is 1: wanted True|"),
            ("queue.assert_enqueued('ship', {}, exact=True)",
             "there is no job of 'ship' with exactly {}|nearest is job 1 of 'ship':|"
             "  payload.n is 1: wanted none|"),
            ("queue.assert_enqueued('ship', run_at=timedelta(days=1))",
             "there is no job of 'ship', run_at 1 day, 0:00:00|nearest is job 1 of 'ship':|"
             "  run_at is 23:00:0"),
            ("queue.assert_enqueued('ship', state='failed')",
             "there is no job of 'ship', state 'failed'|the queue is empty"),
            ("queue.assert_enqueued('ship', run_at=datetime(2030, 1, 1))", "has no time zone"),
        ]

        @pytest.fixture
        def queue(graphile_worker_queue):
            graphile_worker_queue.add_job("ship", {"n": 1}, run_at=timedelta(hours=1))
            return graphile_worker_queue

        def test_it(queue):
            for check, message in CASES:
                with pytest.raises((AssertionError, ValueError)) as caught:
                    eval(check)
                assert message.replace("|", chr(10)) in str(caught.value)
    """)


def test_due_jobs_run_in_a_worker_with_those_that_they_add(suite: Suite) -> None:
    suite.passes(
        TASKS
        + """
    from graphile_worker.worker.context import context

    @tasks.task("welcome")
    async def welcome(to: str):
        await context().add_job("send_email", {"to": to})

    def test_it(queue):
        tasks.bind(queue.utils)
        welcome.add("ann")
        send_email.add("bob")
        send_email.with_options(run_at=timedelta(days=1)).add("eve")
        report = queue.run_due_jobs(tasks)
        assert sent == ["bob", "ann"]
        assert [job.task_identifier for job in report.succeeded] == [
            "welcome", "send_email", "send_email",
        ]
        assert len(report) == 3
        assert [job.payload["to"] for job in queue.jobs()] == ["eve"]
        assert len(queue.run_due_jobs(tasks)) == 0
    """
    )


def test_the_error_of_a_task_is_raised_or_reported(suite: Suite) -> None:
    suite.passes(
        TASKS
        + """
    def test_raised(queue):
        queue.add_job("send_email", {"to": "nobody"})
        with pytest.raises(ValueError, match="no such address") as caught:
            queue.run_due_jobs(tasks)
        assert caught.value.__notes__ == ["in job 1 of 'send_email', attempt 1"]

    def test_reported(queue):
        queue.add_job("send_email", {"to": "nobody"}, max_attempts=1)
        queue.add_job("send_email", {"to": "ann"})
        report = queue.run_due_jobs(tasks, raises=False)
        (failure,) = report.failed
        assert str(failure.error) == "no such address"
        assert failure.for_good
        assert [job.payload for job in report.succeeded] == [{"to": "ann"}]
        queue.assert_enqueued("send_email", {"to": "nobody"}, state="failed")
        queue.assert_not_enqueued("send_email")
        with pytest.raises(AssertionError, match=r"failed: ValueError: no such address$"):
            queue.assert_not_enqueued(state="failed")
    """
    )


def test_a_job_that_adds_itself_is_stopped(suite: Suite) -> None:
    suite.passes("""
        import pytest
        from graphile_worker import GraphileWorkerError, Tasks
        from graphile_worker.worker.context import context

        tasks = Tasks()

        @tasks.task("again")
        async def again():
            await context().add_job("again")

        def test_it(queue):
            queue.add_job("again")
            with pytest.raises(GraphileWorkerError, match="more than 20 jobs ran: does a job add itself"):
                queue.run_due_jobs(tasks, limit=20)
    """)


def test_in_a_coroutine_the_run_is_awaited(suite: Suite) -> None:
    suite.passes(
        TASKS
        + """
    import asyncio
    from graphile_worker import GraphileWorkerError

    def test_it(queue):
        async def main():
            queue.add_job("send_email", {"to": "ann"})
            with pytest.raises(GraphileWorkerError, match="await queue.arun_due_jobs"):
                queue.run_due_jobs(tasks)
            return await queue.arun_due_jobs(tasks)

        assert len(asyncio.run(main())) == 1
        assert sent == ["ann"]
    """
    )


def test_time_travel_makes_later_jobs_and_failed_ones_due(suite: Suite) -> None:
    suite.passes(
        TASKS
        + """
    def test_it(queue):
        queue.add_job("send_email", {"to": "ann"}, run_at=timedelta(hours=2))
        queue.add_job("send_email", {"to": "nobody"}, max_attempts=3)
        assert len(queue.run_due_jobs(tasks, raises=False)) == 1
        queue.travel(timedelta(hours=1))
        report = queue.run_due_jobs(tasks, raises=False)
        assert [failure.job.attempts for failure in report.failed] == [2]
        assert sent == []
        queue.travel(timedelta(hours=1, seconds=1))
        report = queue.run_due_jobs(tasks, raises=False)
        assert [failure.for_good for failure in report.failed] == [True]
        assert sent == ["ann"]
    """
    )


def test_time_travel_adds_up_and_moves_jobs_locks_and_crontabs_alike(suite: Suite) -> None:
    suite.passes("""
        from datetime import UTC, datetime, timedelta
        import pytest
        from graphile_worker import GraphileWorkerError

        def test_it(queue):
            noon = queue.now() + timedelta(days=200)
            queue.add_job("ship", run_at=noon)
            queue.add_job("bill", queue_name="bills")
            conn = queue.connect()
            conn.execute("select graphile_worker.get_jobs('w1', 1)")
            conn.execute("insert into graphile_worker._private_known_crontabs values ('nightly', now(), now())")
            queue.travel(noon - timedelta(hours=1))
            queue.assert_enqueued("ship", run_at=timedelta(hours=1))
            queue.assert_enqueued("ship", run_at=noon, state="scheduled")
            queue.travel(noon)
            queue.assert_enqueued("ship", run_at=noon, state="ready")
            assert abs(queue.now() - noon) < timedelta(minutes=1)
            sql = '''
                select locked_at from graphile_worker._private_jobs where locked_at is not null
                union all select locked_at from graphile_worker._private_job_queues
                union all select known_since from graphile_worker._private_known_crontabs
                union all select last_execution from graphile_worker._private_known_crontabs
            '''
            then = datetime.now(UTC) - timedelta(days=200)
            times = [time for (time,) in conn.execute(sql)]
            assert len(times) == 4
            assert all(abs(time - then) < timedelta(minutes=1) for time in times)
            with pytest.raises(GraphileWorkerError, match="cannot travel back in time"):
                queue.travel(noon - timedelta(days=1))
            with pytest.raises(GraphileWorkerError, match="has no time zone"):
                queue.travel(datetime(2040, 1, 1))
    """)


def test_the_queue_is_seen_in_the_transaction_of_any_library(suite: Suite) -> None:
    suite.passes("""
        from datetime import timedelta
        import psycopg, pytest
        from graphile_worker import GraphileWorkerError, add_job
        from graphile_worker.testing import queue_in
        from sqlalchemy import create_engine
        from sqlalchemy.orm import Session

        def check(conn):
            seen = queue_in(conn)
            add_job("ship", {"order": 1}, conn=conn, run_at=timedelta(hours=1))
            seen.add_job("bill")
            seen.assert_enqueued("ship", {"order": 1}, state="scheduled")
            seen.travel(timedelta(hours=1))
            seen.assert_enqueued("ship", state="ready")
            assert seen.utils.counts().ready == 2
            with pytest.raises(GraphileWorkerError, match="not committed"):
                seen.run_due_jobs({})

        def test_psycopg(queue):
            with psycopg.connect(queue.dsn) as conn:
                check(conn)
                conn.rollback()
            queue.assert_not_enqueued()

        def test_sqlalchemy(queue):
            engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(queue.dsn))
            with Session(engine) as session:
                check(session)
            engine.dispose()
            queue.assert_not_enqueued()
    """)


def test_only_the_owner_travels_in_time(db: Database) -> None:
    from datetime import timedelta

    from graphile_worker.errors import AccessDenied
    from graphile_worker.testing import queue_in

    role = f"traveller_{db.name}"
    db.rows(f"create role {role} login")
    try:
        db.rows(f"select graphile_worker.grant_access('{role}', 'admin')")
        with pytest.raises(AccessDenied, match="only the owner"):
            queue_in(db.connect(role=role)).travel(timedelta(hours=1))
    finally:
        db.rows(f"drop owned by {role}")
        db.rows(f"drop role {role}")
