"""Taking, finishing, failing and returning jobs, alone and against each other."""

from __future__ import annotations

import json
import random
import threading
import time
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from support.pg import Database, pages, wait_for

TAKE = "select id from graphile_worker.get_jobs(%s, %s, %s, %s)"
TEN = "select * from graphile_worker.get_jobs('w', 10)"


def add(db: Database, task: str = "t", **options: Any) -> int:
    names = "".join(f", {name} := %s" for name in options)
    job: int = db.value(
        f"select id from graphile_worker.add_job(%s{names})", task, *options.values()
    )
    return job


def take(
    db: Database | psycopg.Connection[Any],
    worker: str = "w",
    n: int = 100,
    tasks: list[str] | None = None,
    flags: list[str] | None = None,
) -> list[int]:
    if isinstance(db, Database):
        return db.column(TAKE, worker, n, tasks, flags)
    return [row[0] for row in db.execute(TAKE, (worker, n, tasks, flags))]


def test_a_taken_job_carries_all_that_a_worker_needs(db: Database) -> None:
    add(db, "send", payload='{"b": 1, "a": 2}', queue_name="q", job_key="k", flags=["f"])
    assert db.row(
        "select task_identifier, payload::text, queue_name, attempts, max_attempts, key, locked_by,"
        " flags, locked_at = now() from graphile_worker.get_jobs('w')"
    ) == ("send", '{"b": 1, "a": 2}', "q", 1, 25, "k", "w", {"f": True}, True)
    assert db.row("select locked_by, is_available from graphile_worker._private_job_queues") == (
        "w",
        False,
    )


def test_jobs_come_in_order_of_priority_then_time_then_id(db: Database) -> None:
    rng = random.Random(1)
    rows = []
    for _ in range(200):
        priority, minute = rng.randint(-2, 2), rng.randint(0, 5)
        run_at = f"2020-01-01 00:0{minute}+00"
        rows.append((priority, minute, add(db, priority=priority, run_at=run_at)))
    expected = [job for _, _, job in sorted(rows)]
    taken: list[int] = []
    while len(taken) < 200:
        taken += take(db, n=rng.randint(1, 30))
    assert taken == expected


def test_future_exhausted_and_foreign_jobs_are_left_alone(db: Database) -> None:
    add(db, run_at="2099-01-01")
    dead, mine, other = add(db, max_attempts=1), add(db), add(db, "other")
    db.rows("select graphile_worker.permanently_fail_jobs(%s)", [dead])
    flagged = add(db, flags=["slow", "eu"])
    assert take(db, tasks=["nobody knows"]) == []
    assert take(db, tasks=[]) == []
    assert take(db, tasks=["t", "nobody knows"], flags=["eu", "us"]) == [mine]
    assert take(db) == [other, flagged]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [("null", "GWBWI"), ("''", "GWBWI"), ("'w', 0", "GWBMJ"), ("'w', null", "GWBMJ")],
)
def test_a_bad_taker_is_refused(db: Database, arguments: str, code: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.rows(f"select graphile_worker.get_jobs({arguments})")
    assert caught.value.sqlstate == code


def test_a_queue_gives_one_job_at_a_time_in_order(db: Database) -> None:
    jobs = {q: [add(db, queue_name=q) for _ in range(3)] for q in ("a", "b")}
    free = add(db)
    assert take(db) == [jobs["a"][0], jobs["b"][0], free]
    assert take(db) == []
    db.rows("select graphile_worker.finish_jobs('w', %s)", [jobs["a"][0]])
    assert take(db) == [jobs["a"][1]]
    db.rows("select graphile_worker.fail_jobs('w', %s)", json.dumps([{"id": jobs["b"][0]}]))
    assert take(db) == [jobs["b"][1]]
    db.rows("select graphile_worker.return_jobs('w', %s)", [jobs["b"][1]])
    assert take(db) == [jobs["b"][1]]


def test_a_future_job_does_not_hold_up_its_queue(db: Database) -> None:
    add(db, queue_name="q", run_at="2099-01-01", priority=-1)
    ready = add(db, queue_name="q")
    assert take(db) == [ready]


def test_only_the_owner_can_finish_fail_or_return(db: Database) -> None:
    job = add(db, queue_name="q")
    take(db, "owner")
    for call in (
        "finish_jobs('late', array[%s::bigint])",
        "fail_jobs('late', json_build_array(json_build_object('id', %s::bigint)))",
        "return_jobs('late', array[%s::bigint])",
    ):
        assert db.rows(f"select * from graphile_worker.{call}", job) == [(job, False)]
    assert db.row("select locked_by, attempts from graphile_worker.jobs") == ("owner", 1)
    assert not db.value("select is_available from graphile_worker._private_job_queues")
    ids = [job, 404, job]
    done = db.rows("select * from graphile_worker.finish_jobs('owner', %s)", ids)
    assert done == [(job, True), (404, False), (job, True)]


def test_a_failed_job_waits_longer_each_time(db: Database) -> None:
    job = add(db, payload="[1,2]")
    for attempt in range(1, 13):
        db.rows("update graphile_worker._private_jobs set run_at = '2020-01-01'")
        assert take(db) == [job]
        failure = {"id": job, "error": f"no {attempt}", "payload": [2] if attempt == 3 else None}
        db.rows("select graphile_worker.fail_jobs('w', %s)", json.dumps([failure]))
        assert db.row(
            "select attempts, last_error, locked_at, locked_by, payload::text, updated_at = now(),"
            " run_at - now() = exp(least(attempts, 10)) * interval '1 second'"
            " from graphile_worker._private_jobs"
        )[:5] == (attempt, f"no {attempt}", None, None, "[2]" if attempt >= 3 else "[1,2]")
        delay = db.value(
            "select extract(epoch from run_at - updated_at) / exp(least(attempts, 10))"
            " from graphile_worker._private_jobs"
        )
        assert abs(float(delay) - 1) < 1e-3


def test_a_failure_can_set_its_time_or_be_final(db: Database) -> None:
    late, final = add(db), add(db)
    take(db)
    failures = [{"id": late, "run_at": "2099-01-01T00:00:00Z"}, {"id": final, "final": True}]
    db.rows("select graphile_worker.fail_jobs('w', %s)", json.dumps(failures))
    assert db.rows(
        "select run_at = '2099-01-01Z', is_available from graphile_worker._private_jobs order by id"
    ) == [(True, True), (False, False)]


@pytest.mark.parametrize(
    "error",
    [r'"a\u0000b"', r'"half \ud83d pair"', r'"low \udc00"', r'"\\u0000"', '"ok \\ud83d\\ude00"'],
)
def test_an_error_text_that_cannot_be_stored_still_fails_the_job(db: Database, error: str) -> None:
    job = add(db)
    take(db)
    done = db.rows(
        "select * from graphile_worker.fail_jobs('w', %s)", f'[{{"id": {job}, "error": {error}}}]'
    )
    assert done == [(job, True)]
    assert db.value("select last_error from graphile_worker.jobs")


def test_failures_of_the_wrong_shape_change_nothing(db: Database) -> None:
    job = add(db)
    take(db)
    for bad in ('{"id": 1}', f'[{{"id": {job}}}, {{"error": "x"}}]', "3"):
        with pytest.raises(psycopg.Error) as caught:
            db.rows("select graphile_worker.fail_jobs('w', %s)", bad)
        assert caught.value.sqlstate == "GWBFA"
    assert db.value("select locked_by from graphile_worker.jobs") == "w"


def test_a_returned_job_has_used_no_attempt(db: Database) -> None:
    job = add(db, max_attempts=1)
    take(db)
    db.rows("select graphile_worker.return_jobs('w', %s)", [job])
    assert db.row("select attempts, locked_by from graphile_worker.jobs") == (0, None)
    assert take(db) == [job]
    db.rows("select graphile_worker.return_jobs('w', %s, now() + '1 hour')", [job])
    assert take(db) == []


def test_only_locks_older_than_four_hours_are_stale(db: Database) -> None:
    for queue in ("old", "new"):
        add(db, queue_name=queue)
        take(db, queue)
    for table in ("_private_jobs", "_private_job_queues"):
        db.rows(
            f"update graphile_worker.{table} set locked_at = now() - case locked_by"
            " when 'old' then interval '4 h 1 s' else interval '3 h 59 min' end"
        )
    assert db.row("select * from graphile_worker.release_stale_locks()") == (1, 1)
    assert db.row("select * from graphile_worker.release_stale_locks()") == (0, 0)
    assert db.column("select queue_name from graphile_worker.get_jobs('w', 9)") == ["old"]


def test_what_is_managed_is_never_a_running_job(db: Database) -> None:
    idle, running, stale = add(db), add(db, job_key="k"), add(db)
    take(db)
    db.rows("select graphile_worker.return_jobs('w', %s)", [idle])
    db.rows(
        "update graphile_worker._private_jobs set locked_at = now() - interval '5 h' where id = %s",
        stale,
    )
    every = [idle, running, stale]
    moved = db.rows(
        "select id, run_at = '2099-01-01', priority, attempts, max_attempts"
        " from graphile_worker.reschedule_jobs(%s, '2099-01-01', 3, 0, 9)",
        every,
    )
    assert moved == [(job, True, 3, 0, 9) for job in (idle, stale)]
    assert [
        row[0] for row in db.rows("select id from graphile_worker.reschedule_jobs(%s)", every)
    ] == [idle, stale]
    assert db.rows(
        "select id, last_error, attempts from graphile_worker.permanently_fail_jobs(%s) order by id",
        every,
    ) == [(job, "Manually marked as failed", 9) for job in (idle, stale)]
    assert db.column("select id from graphile_worker.complete_jobs(%s) order by id", every) == [
        idle,
        stale,
    ]
    key, left = db.row("select key, max_attempts - attempts from graphile_worker.remove_job('k')")
    assert (key, left) == (None, 0)
    assert db.value("select remove_job is null from graphile_worker.remove_job('k')")
    waiting = add(db, job_key="k")
    assert db.value("select id from graphile_worker.remove_job('k')") == waiting
    assert db.column("select id from graphile_worker.jobs") == [running]


def test_force_unlock_frees_exactly_these_workers(db: Database) -> None:
    for worker in ("a", "b", "c"):
        add(db, queue_name=worker)
        take(db, worker)
    db.rows("select graphile_worker.force_unlock_workers('{a,b,x}')")
    assert db.column("select locked_by from graphile_worker.jobs order by id") == [None, None, "c"]
    assert sorted(db.column("select queue_name from graphile_worker.get_jobs('d', 9)")) == [
        "a",
        "b",
    ]


def crowd(db: Database, count: int, queues: int = 2) -> None:
    """Put jobs behind locked queues at the head of the order."""
    db.rows(
        "insert into graphile_worker._private_job_queues (queue_name, locked_at, locked_by)"
        " select 'stuck' || i, now(), 'x' from generate_series(1, %s) i",
        queues,
    )
    db.rows(
        "insert into graphile_worker._private_jobs (task_id, job_queue_id, run_at)"
        " select 1, 1 + i %% %s, now() - interval '1 day' + i * interval '1 ms'"
        " from generate_series(1, %s) i",
        queues,
        count,
    )


@pytest.mark.parametrize("stuck", [0, 5000])
def test_a_second_taker_goes_on_behind_the_first_and_locks_only_what_it_takes(
    db: Database, stuck: int
) -> None:
    add(db)
    assert len(take(db)) == 1
    crowd(db, stuck)
    jobs = [add(db, queue_name=f"q{i}" if i % 2 else None) for i in range(60)]
    first, second = db.connect(autocommit=False), db.connect(autocommit=False)
    assert take(first, "a", 20) == jobs[:20]
    assert take(second, "b", 20) == jobs[20:40]
    free = (
        "select id from graphile_worker.{} where is_available {} order by id for update skip locked"
    )
    left = db.column(free.format("_private_jobs", "and run_at > now() - interval '1 h'"))
    assert left == jobs[40:]
    assert len(db.column(free.format("_private_job_queues", ""))) == 10
    first.rollback()
    second.commit()
    assert take(db, "c", 20) == jobs[:20]


@pytest.mark.parametrize("key", [None, "k"])
def test_takers_share_a_few_jobs(db: Database, key: str | None) -> None:
    jobs = [add(db, job_key=key and f"{key}{i}") for i in range(10)]
    takers = [db.connect(autocommit=False) for _ in range(4)]
    assert [take(taker, n=1) for taker in takers[:3]] == [[job] for job in jobs[:3]]
    assert take(takers[3]) == jobs[3:]
    nothing = db.connect(autocommit=False)
    assert take(nothing) == []
    takers[0].rollback()
    takers[3].commit()
    # Having taken nothing, it has locked nothing: the others' rows and its own are free.
    assert db.column("select id from graphile_worker._private_jobs for update skip locked") == [
        jobs[0], *jobs[3:]
    ]  # fmt: skip
    assert take(db) == [jobs[0]]


@pytest.mark.parametrize("crowd_of", ["locked queues", "a foreign task", "a forbidden flag"])
def test_jobs_behind_a_crowd_are_still_taken_in_order(db: Database, crowd_of: str) -> None:
    add(db, "mine")
    take(db)
    if crowd_of == "locked queues":
        crowd(db, 6000)
    else:
        flags = "'{\"no\": true}'" if crowd_of == "a forbidden flag" else "null"
        db.rows("insert into graphile_worker._private_tasks (identifier) values ('foreign')")
        db.rows(
            "insert into graphile_worker._private_jobs (task_id, run_at, flags)"
            f" select %s, now() - interval '1 day', {flags} from generate_series(1, 6000)",
            2 if crowd_of == "a foreign task" else 1,
        )
    rng = random.Random(2)
    rows = []
    for i in range(120):
        priority, queue = rng.randint(-1, 2), f"q{i}" if i % 2 else None
        rows.append(
            (max(priority, 0), i, add(db, "mine", priority=max(priority, 0), queue_name=queue))
        )
    add(db, "mine", run_at="2099-01-01", queue_name="q1", priority=-3)
    expected = [job for _, _, job in sorted(rows)]
    taken: list[int] = []
    for n in (1, 7, 50, 100):
        taken += take(db, n=n, tasks=["mine"] if "task" in crowd_of else None, flags=["no"])
    assert taken == expected


def test_among_very_many_lanes_a_call_looks_in_several_places(db: Database) -> None:
    """Each look is at 500 lanes of 2,000: one finds the only queue that is free once in four."""
    db.rows(
        "insert into graphile_worker._private_job_queues (queue_name, locked_at, locked_by)"
        " select 'q' || i, locked.at, 'somebody' from generate_series(1, 2000) as i"
        " cross join lateral (select case when i <> 1000 then now() end) as locked (at) order by i"
    )
    job = add(db, "mine", queue_name="q1000")
    db.rows(
        "insert into graphile_worker._private_jobs (task_id, job_queue_id, run_at)"
        " select 1, id, now() - interval '1 day' from graphile_worker._private_job_queues"
        " where not is_available"
    )
    found = 0
    for _ in range(30):
        if take(db, n=10) == [job]:
            found += 1
            db.rows("select graphile_worker.return_jobs('w', %s)", [job])
    assert found > 18, found


@pytest.mark.parametrize("queues", [True, False])
def test_taking_matches_a_naive_model(db: Database, queues: bool) -> None:
    """Random jobs, queues, tasks and locks: what comes is what a sorted list would give."""
    rng = random.Random(db.major)
    for i in range(12):
        db.rows("insert into graphile_worker._private_job_queues (queue_name) values (%s)", f"q{i}")
    for i in range(4):
        db.rows("insert into graphile_worker._private_tasks (identifier) values (%s)", f"t{i}")
    model: dict[int, tuple[int, int, str, str | None]] = {}
    running: dict[int, str | None] = {}
    for _ in range(60):
        for _ in range(rng.randint(0, 20)):
            row = (rng.randint(0, 2), rng.randint(0, 3), f"t{rng.randint(0, 3)}",
                   rng.choice([None, f"q{rng.randint(0, 11)}"]) if queues else None)  # fmt: skip
            job = add(
                db, row[2], priority=row[0], run_at=f"2020-01-0{row[1] + 1}", queue_name=row[3]
            )
            model[job] = row
        tasks = rng.choice([None, ["t1"], ["t0", "t2", "t3"]])
        n = rng.randint(1, 12)
        busy = {queue for queue in running.values() if queue}
        expected = []
        for job, (_, _, task, queue) in sorted(model.items(), key=lambda kv: (*kv[1][:2], kv[0])):
            if job in running or queue in busy or (tasks and task not in tasks):
                continue
            expected.append(job)
            if queue:
                busy.add(queue)
            if len(expected) == n:
                break
        # By the first look where that is enough, or past it; a slow machine may remember heads.
        db.rows(f"set graphile_worker.cursors = {rng.choice(['', 'null'])!r}")
        assert take(db, n=n, tasks=tasks) == expected
        running.update({job: model[job][3] for job in expected})
        for job in rng.sample(sorted(running), len(running) // 2):
            db.rows("select graphile_worker.finish_jobs('w', %s)", [job])
            del running[job], model[job]


PLAN_SHAPES = ("empty and never analysed", "grown since it was analysed", "analysed")


@pytest.mark.parametrize("shape", PLAN_SHAPES)
def test_taking_reads_little_whatever_is_in_the_table(db: Database, shape: str) -> None:
    """The guard on the plans: pages touched by a call, however crowded the table."""
    add(db, "mine")
    take(db)
    if shape == "grown since it was analysed":
        db.rows("analyze graphile_worker._private_jobs")
    crowd(db, 30_000)
    db.rows(
        "insert into graphile_worker._private_jobs (task_id, run_at, priority)"
        " select 1, now() + interval '1 day', i % 5 from generate_series(1, 60000) i"
    )
    db.rows(
        "insert into graphile_worker._private_job_queues (queue_name)"
        " select 'lane' || i from generate_series(1, 5000) i"
    )
    db.rows(
        "insert into graphile_worker._private_jobs (task_id, job_queue_id)"
        " select 1, id from graphile_worker._private_job_queues, generate_series(1, 4)"
        " where queue_name like 'lane%'"
    )
    if shape == "analysed":
        db.rows("vacuum analyze graphile_worker._private_jobs")
    for tasks in (None, ["mine"]):
        taken = take(db, n=10, tasks=tasks)
        assert len(taken) == 10
        assert pages(db, "select * from graphile_worker.get_jobs('w', 10, %s)", tasks) < 25_000, (
            "an index walk of one step a lane, not a read of the backlog"
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


def heads(connection: psycopg.Connection[Any]) -> Any:
    (text,) = connection.execute(
        "select current_setting('graphile_worker.cursors')"
    ).fetchone() or ("",)
    return json.loads(text) if text else None


def test_behind_dead_rows_a_session_remembers_where_the_order_begins(db: Database) -> None:
    connection = db.connect()
    take(connection)
    assert heads(connection) is None, "nothing is remembered of a first call"
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
    assert heads(connection) is None, "it has seen that looking takes long"
    (second,) = take(connection, n=1)
    _, _, priorities, _, ids = heads(connection)
    assert (priorities, ids) == ([0, 1], [second, ids[1]])
    remembered = pages(connection, TEN)
    connection.execute("set graphile_worker.cursors = ''")
    assert pages(connection, TEN) > 3 * remembered


def test_an_empty_look_behind_dead_rows_keeps_what_is_remembered(db: Database) -> None:
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
    remembered = heads(connection)
    assert take(connection) == []
    assert heads(connection) == remembered
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
        return not take(connection) and heads(connection) is None

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


def test_a_job_before_a_remembered_head_waits_only_while_there_are_others(db: Database) -> None:
    connection = db.connect()
    early, head, more, late = (add(db) for _ in range(4))
    urgent = add(db, priority=-1)
    remember(connection, head)
    assert take(connection, n=1) == [head]
    assert heads(connection)[4] == [head]
    assert take(connection, n=1) == [more], "the head has moved on"
    assert heads(connection)[4] == [more]
    assert take(connection, n=5) == [late], "fewer than asked for, but not none"
    assert take(connection, n=5) == [urgent, early]


def test_a_remembered_head_is_forgotten_in_time_and_is_of_one_schema(db: Database) -> None:
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
    crowd(db, 3000)
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


def test_no_queue_ever_has_two_jobs_in_flight(db: Database) -> None:
    for i in range(400):
        add(db, queue_name=f"q{i % 7}" if i % 4 else None)
    lock, active, worst, ran = threading.Lock(), dict[str, int](), [0], list[int]()
    deadline = time.monotonic() + 60

    def work(name: str) -> None:
        connection, rng = db.connect(), random.Random(name)
        while len(ran) < 400 and time.monotonic() < deadline:
            jobs = connection.execute(
                "select id, queue_name from graphile_worker.get_jobs(%s, %s)",
                (name, rng.randint(1, 9)),
            ).fetchall()
            with lock:
                for _, queue in jobs:
                    if queue:
                        active[queue] = active.get(queue, 0) + 1
                        worst[0] = max(worst[0], active[queue])
            for job, queue in jobs:
                with lock:
                    if queue:
                        active[queue] -= 1
                how = rng.random()
                if how < 0.7:
                    connection.execute("select graphile_worker.finish_jobs(%s, %s)", (name, [job]))
                    ran.append(job)
                elif how < 0.85:
                    connection.execute("select graphile_worker.return_jobs(%s, %s)", (name, [job]))
                else:
                    failure = json.dumps([{"id": job, "run_at": "2020-01-01"}])
                    connection.execute("select graphile_worker.fail_jobs(%s, %s)", (name, failure))

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ran) == sorted(set(ran))
    assert len(ran) == 400
    assert worst[0] == 1
