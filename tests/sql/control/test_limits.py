"""A limit holds whatever was running before, however it is changed, and however jobs end."""

from __future__ import annotations

import psycopg
import pytest
from support.pg import Database

from sql.control.limits import finish, limit, more
from sql.fetch.claims import add, take

STATE = "select name, limit_name, running, slots from graphile_worker.limit_states order by name"


def test_of_a_limited_task_so_many_run_and_no_more(db: Database) -> None:
    limit(db, "task", "t", max_running=3)
    jobs = [add(db) for _ in range(5)]
    other = add(db, "other", queue_name="q")
    assert take(db, "a", 2) == jobs[:2]
    assert take(db, "b", 10) == [jobs[2], other]
    assert more(db) == "limited"
    assert take(db, "c", 10) == []
    assert db.rows(STATE) == [("t", "t", 3, 0)]
    assert finish(db, jobs[0], worker="a") == [True]
    assert take(db, "c", 10) == [jobs[3]]
    assert db.row("select max_running, running from graphile_worker.limits") == (3, 3)


def test_a_large_limit_is_exact_and_its_notes_do_not_grow_for_ever(db: Database) -> None:
    limit(db, "task", "t", max_running=3000)
    db.rows(
        "select count(*) from graphile_worker.add_jobs(array(select row('t', null, null, null, null,"
        " null, null, null)::graphile_worker.job_spec from generate_series(1, 12000)))"
    )
    held: list[int] = []
    for _ in range(5):
        held += take(db, n=1000)
    assert len(held) == 3000
    assert db.value("select running from graphile_worker.limits") == 3000
    for _ in range(8):
        finish(db, *held[:1000])
        held = held[1000:] + take(db, n=2000)
        assert len(held) == 3000
    assert take(db, n=10) == []
    noted = "select max(cardinality(job_ids)) from graphile_worker._private_limit_states"
    assert db.value(noted) <= 6000


def test_without_a_limit_a_queue_is_serial_and_with_one_it_runs_so_many(db: Database) -> None:
    jobs = [add(db, queue_name="q") for _ in range(5)]
    assert take(db) == jobs[:1]
    limit(db, "queue", "q", max_running=3)
    assert take(db) == jobs[1:3], "the one that ran already counts"
    assert take(db) == []
    finish(db, jobs[0])
    assert take(db) == [jobs[3]]
    assert db.value("select graphile_worker.remove_limit('queue', 'q')") is True
    for job in jobs[1:4]:
        assert take(db) == [], "serial again, and jobs of it still run"
        finish(db, job)
    assert take(db) == [jobs[4]]
    assert db.value("select locked_by from graphile_worker.queues") == "w"
    assert db.value("select graphile_worker.remove_limit('queue', 'q')") is False


def test_each_queue_of_a_family_has_the_limit_to_itself(db: Database) -> None:
    limit(db, "queue", "tenant-*", max_running=3)
    limit(db, "queue", "tenant-big*", max_running=4)
    limit(db, "queue", "tenant-big", max_running=1)
    for queue in ("tenant-a", "tenant-b", "tenant-bigger", "tenant-big", "other"):
        for _ in range(6):
            add(db, queue_name=queue)
    assert len(take(db)) == 3 + 3 + 4 + 1 + 1
    assert take(db) == []
    assert db.rows(STATE) == [
        ("tenant-a", "tenant-*", 3, 0), ("tenant-b", "tenant-*", 3, 0),
        ("tenant-big", "tenant-big", 1, 0), ("tenant-bigger", "tenant-big*", 4, 0),
    ]  # fmt: skip
    assert db.rows("select name, running from graphile_worker.limits order by name") == [
        ("tenant-*", 6), ("tenant-big", 1), ("tenant-big*", 4),
    ]  # fmt: skip


def test_both_limits_of_a_job_hold(db: Database) -> None:
    limit(db, "queue", "*", max_running=2)
    limit(db, "task", "t", max_running=3)
    for queue in "abc":
        add(db, queue_name=queue), add(db, queue_name=queue), add(db, "u", queue_name=queue)
    claimed = take(db)
    by_queue = db.rows(
        "select queue_name, count(*), count(*) filter (where task_identifier = 't')"
        " from graphile_worker.jobs where locked_by is not null group by queue_name order by 1"
    )
    assert all(count <= 2 for _, count, _ in by_queue)
    assert sum(of_task for _, _, of_task in by_queue) == 3
    while again := take(db):
        claimed += again
    assert len(claimed) == 5, "three of the task t, and the others where their queue has room"


def test_lowering_the_limit_lets_running_jobs_end_and_starts_none(db: Database) -> None:
    limit(db, "task", "t", max_running=4)
    jobs = [add(db) for _ in range(8)]
    assert take(db) == jobs[:4]
    limit(db, "task", "t", max_running=2)
    finish(db, *jobs[:2])
    assert take(db) == []
    finish(db, jobs[2])
    assert take(db) == [jobs[4]]
    limit(db, "task", "t", max_running=3)
    assert take(db) == [jobs[5]]
    db.rows("select graphile_worker.remove_limit('task', 't')")
    assert take(db) == jobs[6:]
    limit(db, "task", "t", max_running=5)
    add(db), add(db)
    assert len(take(db)) == 0, "what was claimed without a limit is noted when one is set"


@pytest.mark.parametrize(
    "how",
    [
        "select * from graphile_worker.finish_jobs('w', array[%(job)s])",
        "select * from graphile_worker.fail_jobs('w', json_build_array(json_build_object('id', %(job)s)))",
        "select * from graphile_worker.return_jobs('w', array[%(job)s], now() + interval '1 day')",
        "select graphile_worker.end_worker('w')",
        "select graphile_worker.force_unlock_workers(array['w'])",
        "select graphile_worker.return_unknown_jobs('w', '{}')",
        "delete from graphile_worker._private_jobs where id = %(job)s",
        "update graphile_worker._private_jobs set locked_at = null, locked_by = null",
        "update graphile_worker._private_jobs set locked_at = now() - interval '5 h';"
        " select * from graphile_worker.release_stale_locks()",
    ],
)
def test_however_a_job_ends_its_slot_is_free(db: Database, how: str) -> None:
    limit(db, "task", "t", max_running=1)
    first, second = add(db), add(db)
    assert take(db) == [first]
    for statement in how.split(";"):
        db._main().execute(statement.encode(), {"job": first} if "%(job)s" in statement else None)
    (again,) = take(db, "other")
    assert again in (first, second)
    assert take(db, "other") == []


def test_a_job_that_was_freed_and_ends_late_does_not_free_the_slot_of_another(db: Database) -> None:
    limit(db, "queue", "q", max_running=2)
    jobs = [add(db, queue_name="q") for _ in range(4)]
    assert take(db, "frozen") == jobs[:2]
    db.rows("select graphile_worker.force_unlock_workers(array['frozen'])")
    assert take(db, "other") == jobs[:2]
    assert finish(db, *jobs[:2], worker="frozen") == [False, False]
    assert take(db, "third") == []


def test_the_end_of_a_job_wakes_those_that_the_limit_had_wait(db: Database) -> None:
    listener = db.connect()
    limit(db, "queue", "q*", max_running=1)
    first, _ = add(db, queue_name="q1"), add(db, queue_name="q1")
    take(db)
    listener.execute('listen "jobs:insert"')
    finish_nothing = list(listener.notifies(timeout=0.05))
    assert finish_nothing == []
    assert take(db, "waits") == []
    finish(db, first)
    assert len(list(listener.notifies(timeout=5, stop_after=1))) == 1
    take(db)


def test_a_worker_is_told_of_a_full_limit_only_while_it_is_full(db: Database) -> None:
    limit(db, "task", "t", max_running=1)
    limit(db, "queue", "q", max_running=2)
    jobs = [add(db), *(add(db, "u", queue_name="q") for _ in range(2))]
    assert sorted(take(db)) == jobs
    assert (take(db), more(db)) == ([], "limited")
    finish(db, *jobs)
    assert (take(db), more(db)) == ([], "")


def test_a_rate_lets_so_many_start_in_a_time(db: Database) -> None:
    limit(db, "task", "t", rate=2, per="1 hour", burst=3)
    jobs = [add(db) for _ in range(9)]
    assert take(db) == jobs[:3]
    assert 1790 < float(more(db)) <= 1800
    finish(db, *jobs[:3])
    assert take(db) == [], "ended jobs have started all the same"
    state = "update graphile_worker._private_limit_states set next_start_at = next_start_at - %s::interval"
    db.rows(state, "29 minutes")
    assert take(db) == []
    db.rows(state, "1 minute")
    assert take(db, n=1) == [jobs[3]]
    db.rows(state, "1 hour")
    assert take(db) == jobs[4:6]
    db.rows(state, "10 hours")
    assert take(db) == jobs[6:9]
    # a clock that was set back by years
    db.rows(
        "update graphile_worker._private_limit_states set next_start_at = now() + interval '9 y'"
    )
    add(db)
    assert take(db) == []
    assert float(more(db)) <= 1800


def test_a_rate_without_a_burst_spreads_its_starts(db: Database) -> None:
    limit(db, "task", "slow", rate=10, per="1 second")
    limit(db, "task", "fast", rate=1000, per="1 second")
    assert db.rows("select name, burst from graphile_worker.limits order by name") == [
        ("fast", 50), ("slow", 1),
    ]  # fmt: skip


def test_who_gets_nothing_is_told_when_to_come_back(db: Database) -> None:
    left: int = db.value("select count(graphile_worker.add_job('a')) from generate_series(1, 200)")
    # At any point of a call it may allow the next start.
    limit(db, "task", "a", rate=1500, per="1 second", burst=1)
    while left:
        taken = len(take(db))
        left -= taken
        assert taken or more(db)


def test_a_queue_with_a_rate_only_stays_serial(db: Database) -> None:
    limit(db, "queue", "q*", rate=100, per="1 hour", burst=2)
    jobs = [add(db, queue_name="q1") for _ in range(4)]
    assert take(db) == jobs[:1]
    finish(db, jobs[0])
    assert take(db) == jobs[1:2]
    finish(db, jobs[1])
    assert take(db) == []


def test_a_long_backlog_of_one_tenant_delays_another_by_one_fetch_at_most(db: Database) -> None:
    limit(db, "queue", "tenant-*", max_running=3)
    db.rows(
        "select count(*) from graphile_worker.add_jobs(array(select row('t', null, 'tenant-a',"
        " now() - interval '1 day', null, null, null, null)::graphile_worker.job_spec"
        " from generate_series(1, 2000)))"
    )
    (running,) = take(db, n=1)
    for _ in range(5):
        first = add(db, queue_name="tenant-b")
        fetched: list[int] = []
        for _ in range(2):
            finish(db, running)
            (running,) = take(db, n=1)
            fetched.append(running)
        assert first in fetched
        db.rows("delete from graphile_worker._private_jobs where id = %s", first)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("set_limit('all', 'x', 1)", 'Scope is unknown: "all"'),
        ("set_limit(null, 'x', 1)", "Scope is unknown"),
        ("set_limit('task', '', 1)", "Name of the task is null or empty"),
        ("remove_limit('queue', null)", "Name of the queue is null or empty"),
        ("set_limit('task', 'x')", 'Limit of the task "x" limits nothing'),
        ("set_limit('task', 'x', 0)", "Max running is out of range: 0"),
        ("set_limit('task', 'x', 100001)", "Max running is out of range"),
        ("set_limit('task', 'x', rate => 1)", "do not go together"),
        ("set_limit('task', 'x', per => '1 s')", "limits nothing"),
        ("set_limit('task', 'x', 1, per => '1 s')", "do not go together"),
        ("set_limit('task', 'x', 1, burst => 1)", "do not go together"),
        ("set_limit('task', 'x', rate => 0, per => '1 s')", "Rate or burst is out of range"),
        ("set_limit('task', 'x', rate => 1, per => '1 s', burst => 0)", "Rate or burst is out"),
        ("set_limit('task', 'x', rate => 1, per => '0 s')", "Period of the rate is out of range"),
        ("set_limit('task', 'x', rate => 1, per => '-1 s')", "Period of the rate is out of range"),
        ("set_limit('task', 'x', rate => 1, per => '2 years')", "Period of the rate is out of"),
        ("set_limit('task', 'x', rate => 1000000, per => '1 ms')", "Period of the rate is out"),
        ("set_limit('task', 'x', rate => 1, per => '1 day', burst => 1000000)", "Burst takes too"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(db: Database, call: str, message: str) -> None:
    with pytest.raises(psycopg.Error, match=message) as caught:
        db.rows(f"select graphile_worker.{call}")
    assert caught.value.sqlstate in ("GWBCO", "GWBLI")
    assert caught.value.diag.message_hint
    assert db.rows("select * from graphile_worker.limits") == []


def test_states_that_say_nothing_are_forgotten(db: Database) -> None:
    limit(db, "task", "t", max_running=1)
    limit(db, "queue", "q", rate=1, per="1 hour")
    jobs = [add(db), add(db, "u", queue_name="q")]
    assert take(db) == jobs
    finish(db, *jobs)
    db.rows(
        "update graphile_worker._private_limit_states set started_at = now() - interval '1 day'"
    )
    db.rows("select * from graphile_worker.release_stale_locks()")
    left = "select scope, name from graphile_worker._private_limit_states order by 1"
    assert db.rows(left) == [("limit", ""), ("queue", "q")]
    db.rows(
        "select graphile_worker.remove_limit('task', 't'), graphile_worker.remove_limit('queue', 'q')"
    )
    db.rows(
        "update graphile_worker._private_limit_states set next_start_at = now() - interval '1 s'"
    )
    db.rows("select graphile_worker.pause_all()")
    db.rows("select * from graphile_worker.release_stale_locks()")
    assert db.rows(left) == [("pause", "")]
    db.rows("select graphile_worker.resume_all()")
    other = db.connect(autocommit=False)
    other.execute("select graphile_worker.pause_task('t')")
    db.rows("select * from graphile_worker.release_stale_locks()")
    assert db.rows(left) == [("pause", "")], "somebody is about to pause"
    other.rollback()
    db.rows("select * from graphile_worker.release_stale_locks()")
    assert db.rows(left) == []
