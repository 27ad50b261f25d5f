"""What get_jobs reads: its plans, and the cursors that skip dead index entries."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from support.pg import Database, pages, wait_for

from sql.fetch.claims import add, backlog, take

TEN = "select * from graphile_worker.get_jobs('w', 10)"


PLAN_SHAPES = ("empty and never analysed", "grown since it was analysed", "analysed")


@pytest.mark.parametrize("shape", PLAN_SHAPES)
def test_taking_reads_little_whatever_is_in_the_table(db: Database, shape: str) -> None:
    """The guard on the plans: pages touched by a call, however crowded the table."""
    add(db, "mine")
    take(db)
    if shape == "grown since it was analysed":
        db.rows("analyze graphile_worker._private_jobs")
    backlog(db, 30_000)
    db.rows(
        "insert into graphile_worker._private_jobs (task_id, run_at, priority)"
        " select 1, now() + interval '1 day', i % 5 from generate_series(1, 60000) i"
    )
    db.rows(
        "insert into graphile_worker._private_job_queues (queue_name)"
        " select 'partition' || i from generate_series(1, 5000) i"
    )
    db.rows(
        "insert into graphile_worker._private_jobs (task_id, job_queue_id)"
        " select 1, id from graphile_worker._private_job_queues, generate_series(1, 4)"
        " where queue_name like 'partition%'"
    )
    if shape == "analysed":
        db.rows("vacuum analyze graphile_worker._private_jobs")
    for tasks in (None, ["mine"]):
        taken = take(db, n=10, tasks=tasks)
        assert len(taken) == 10
        assert pages(db, "select * from graphile_worker.get_jobs('w', 10, %s)", tasks) < 25_000, (
            "an index walk of one step a partition, not a read of the backlog"
        )
    scans = db.value(
        "select seq_scan from pg_stat_xact_user_tables where relname = '_private_jobs'"
    )
    assert scans == 0


def remember(connection: psycopg.Connection[Any], job: int, seconds: float = 9) -> None:
    """Let a session know where the head of the order is, as it does after a long scan."""
    connection.execute(
        """select set_config('graphile_worker.cursors', json_build_array(
          pg_typeof(null::graphile_worker._private_jobs)::oid::text,
          clock_timestamp() + make_interval(secs => %s),
          array[priority], array[run_at], array[id]
        )::text, false) from graphile_worker._private_jobs where id = %s""",
        (seconds, job),
    )


def add_many(db: Database, count: int) -> None:
    db.rows(
        "select from graphile_worker.add_jobs(array("
        " select row('t', null, null, null, null, null, null, null)::graphile_worker.job_spec"
        " from generate_series(1, %s)))",
        count,
    )


def cursors(connection: psycopg.Connection[Any]) -> Any:
    (text,) = connection.execute(
        "select current_setting('graphile_worker.cursors')"
    ).fetchone() or ("",)
    return json.loads(text) if text else None


def test_behind_dead_rows_a_session_remembers_where_the_order_begins(db: Database) -> None:
    connection = db.connect()
    take(connection)
    assert cursors(connection) is None, "nothing is remembered of a first call"
    add(db, priority=1)
    add_many(db, 40_000)
    # A snapshot that sees them keeps the dead rows, and makes passing them slow.
    holder = db.connect()
    holder.execute("begin isolation level repeatable read")
    holder.execute("select count(*) from graphile_worker.jobs")
    db.rows(
        "select from graphile_worker.finish_jobs('w', array(select id from graphile_worker.get_jobs('w', 39000)))"
    )
    connection.execute("set graphile_worker.cursors = ''")  # on a slow machine it remembers already
    take(connection, n=1)
    assert cursors(connection) is None, "it has seen that looking takes long"
    (second,) = take(connection, n=1)
    _, _, priorities, _, ids = cursors(connection)
    assert (priorities, ids) == ([0, 1], [second, ids[1]])
    remembered = pages(connection, TEN)
    connection.execute("set graphile_worker.cursors = ''")
    assert pages(connection, TEN) > 3 * remembered


def test_an_empty_fetch_behind_dead_rows_keeps_the_cursors(db: Database) -> None:
    """As a worker looks: a job, nothing, a job."""
    connection = db.connect()
    take(connection)
    add_many(db, 40_000)
    holder = db.connect()
    holder.execute("begin isolation level repeatable read")
    holder.execute("select count(*) from graphile_worker.jobs")
    db.rows(
        "select from graphile_worker.finish_jobs('w', array(select id from graphile_worker.get_jobs('w', 40000)))"
    )
    head = add(db)
    remember(connection, head)
    assert take(connection) == [head]
    remembered = cursors(connection)
    assert take(connection) == []
    assert cursors(connection) == remembered
    add(db)
    assert pages(connection, TEN) < 200
    early = add(db, priority=-1)
    assert take(connection) == [early], "with nothing left, all is looked at"
    # Without the dead rows it is not worth it.
    holder.rollback()
    db.rows("truncate graphile_worker._private_jobs")
    remember(connection, add(db))
    db.rows("truncate graphile_worker._private_jobs")

    def forgets() -> bool:
        return not take(connection) and cursors(connection) is None

    wait_for(forgets, "it looks quickly, and forgets")


def test_a_call_that_ends_early_says_so(db: Database) -> None:
    more = "select current_setting('graphile_worker.more', true)"
    ours, other = db.connect(), db.connect()
    add_many(db, 60)
    assert len(take(ours, n=70)) == 60
    assert ours.execute(more).fetchone() in ((None,), ("",)), "these are all"
    add_many(db, 60)
    other.execute("begin")
    other.execute(
        "select from graphile_worker._private_jobs where is_available limit 20 for update"
    )
    assert len(take(ours, n=40)) == 20, "others are at it, and there are more"
    assert ours.execute(more).fetchone() == ("true",)
    assert len(take(ours, n=50)) == 20
    assert ours.execute(more).fetchone() == ("",)
    other.execute("rollback")
    assert len(take(ours, n=40)) == 20
    for i in range(60):
        add(db, job_key=f"k{i}")
    with other.transaction():
        other.execute("select from graphile_worker._private_jobs where key = 'k0' for update")
        assert len(take(ours, n=40)) == 39
        assert ours.execute(more).fetchone() == ("true",)
    other.execute("begin")
    other.execute("select from graphile_worker._private_jobs where key = 'k50' for update")
    assert len(take(ours, n=15)) == 14
    assert ours.execute(more).fetchone() == ("true",)
    assert take(ours, tasks=["unknown"]) == []
    assert ours.execute(more).fetchone() == ("",), "there is nothing more of such a task"
    other.execute("rollback")
    assert len(take(ours, n=40)) == 7
    assert ours.execute(more).fetchone() == ("",)


def test_a_job_before_a_cursor_waits_only_while_there_are_others(db: Database) -> None:
    connection = db.connect()
    early, head, more, late = (add(db) for _ in range(4))
    urgent = add(db, priority=-1)
    remember(connection, head)
    assert take(connection, n=1) == [head]
    assert cursors(connection)[4] == [head]
    assert take(connection, n=1) == [more], "the head has moved on"
    assert cursors(connection)[4] == [more]
    assert take(connection, n=5) == [late], "fewer than asked for, but not none"
    assert take(connection, n=5) == [urgent, early]


def test_a_cursor_is_forgotten_in_time_and_is_of_one_schema(db: Database) -> None:
    connection = db.connect()
    early, head, late = (add(db) for _ in range(3))
    remember(connection, head, seconds=-0.001)
    assert take(connection, n=1) == [early]
    remember(connection, late, seconds=11)
    assert take(connection, n=1) == [head], "no head is valid for so long: the clock was put back"
    add(db)
    remember(connection, late)
    connection.execute(
        "select set_config('graphile_worker.cursors',"
        " replace(current_setting('graphile_worker.cursors'), '[\"', '[\"1'), false)"
    )
    first = add(db, priority=-1)
    assert take(connection, n=1) == [first], "the head of another schema's jobs"


def test_the_statements_of_taking_use_the_indexes(db: Database) -> None:
    """EXPLAIN guard: the plans inside get_jobs, as auto_explain prints them."""
    backlog(db, 3000)
    add(db, "mine")
    connection = db.connect()
    notices: list[str] = []
    connection.add_notice_handler(lambda note: notices.append(note.message_primary or ""))
    connection.execute("load 'auto_explain'")
    for setting in ("log_min_duration = 0", "log_nested_statements = on"):
        connection.execute(f"set auto_explain.{setting}")
    connection.execute("set client_min_messages = log")
    take(connection, tasks=["mine"])
    plans = [n for n in notices if "_private_jobs" in n]
    text = "\n".join(plans)
    assert "jobs_order_idx" in text
    assert "jobs_task_queue_idx" in text
    assert "Seq Scan on _private_jobs" not in text
    for plan in plans:
        lines = plan.splitlines()
        for above, line in pairwise(lines):
            if "using jobs_order_idx" in line and "recursive" not in plan:
                assert "Limit" in above, "the order comes from the index"
