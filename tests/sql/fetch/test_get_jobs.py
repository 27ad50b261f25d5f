"""What get_jobs returns: order, queues, backlogs, and calls beside each other."""

from __future__ import annotations

import json
import random
import threading
import time

import psycopg
import pytest
from support.pg import Database

from sql.fetch.claims import add, backlog, take


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


@pytest.mark.parametrize("stuck", [0, 5000])
def test_a_second_taker_goes_on_behind_the_first_and_locks_only_what_it_takes(
    db: Database, stuck: int
) -> None:
    add(db)
    assert len(take(db)) == 1
    backlog(db, stuck)
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


@pytest.mark.parametrize("backlog_of", ["locked queues", "a foreign task", "a forbidden flag"])
def test_jobs_behind_a_backlog_are_still_taken_in_order(db: Database, backlog_of: str) -> None:
    add(db, "mine")
    take(db)
    if backlog_of == "locked queues":
        backlog(db, 6000)
    else:
        flags = "'{\"no\": true}'" if backlog_of == "a forbidden flag" else "null"
        db.rows("insert into graphile_worker._private_tasks (identifier) values ('foreign')")
        db.rows(
            "insert into graphile_worker._private_jobs (task_id, run_at, flags)"
            f" select %s, now() - interval '1 day', {flags} from generate_series(1, 6000)",
            2 if backlog_of == "a foreign task" else 1,
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
        taken += take(db, n=n, tasks=["mine"] if "task" in backlog_of else None, flags=["no"])
    assert taken == expected


def test_among_very_many_partitions_a_call_looks_in_several_places(db: Database) -> None:
    """Each look is at 500 partitions of 2,000: one finds the only queue that is free once in four."""
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
        # By the first jobs where these are enough, or past it; a slow machine may keep cursors.
        db.rows(f"set graphile_worker.cursors = {rng.choice(['', 'null'])!r}")
        assert take(db, n=n, tasks=tasks) == expected
        running.update({job: model[job][3] for job in expected})
        for job in rng.sample(sorted(running), len(running) // 2):
            db.rows("select graphile_worker.finish_jobs('w', %s)", [job])
            del running[job], model[job]


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
