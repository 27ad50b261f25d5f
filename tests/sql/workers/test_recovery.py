"""Jobs of dead workers are freed soon, once, and only theirs."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest
from support.pg import Database

from sql.workers.heartbeats import JOBS, SWEEP, G, add, beat, die, ready, shift, steady, take


def test_what_others_hold_of_a_dead_worker_is_freed_by_a_later_call(db: Database) -> None:
    ready(db)
    add(db)
    db.rows(f"select {G}.heartbeat('dead', null, null, true)")
    assert take(db, "dead")
    other = db.connect(autocommit=False)
    with other.transaction():
        other.execute(f"select from {G}._private_jobs for update")
        shift(db, "dead", "heartbeat_at", "1 hour")
        assert db.rows(SWEEP, None) == [("dead", 0, 0)]
        assert db.rows(SWEEP, None) == []
    assert db.column(f"select worker_id from {G}.workers") == []
    assert db.column(f"select worker_id from {G}.ended_workers") == ["dead"]
    assert db.rows(SWEEP, None) == [("dead", 1, 0)]
    assert db.rows(SWEEP, None) == []


def test_what_a_dead_worker_held_is_free_again_and_others_are_woken(db: Database) -> None:
    ready(db)
    jobs = [add(db, queue_name="q"), add(db, max_attempts=1), add(db, job_key="k")]
    waiting = add(db, queue_name="q")
    die(db, "dead")
    beat(db, "idle")
    shift(db, "idle", "heartbeat_at", "1 minute")
    steady(db, "alive")
    assert take(db, "dead") == jobs
    mine = add(db, queue_name="mine")
    assert take(db, "alive") == [mine]
    listener = db.connect()
    listener.execute('listen "jobs:insert"')
    assert db.column(f"select worker_id from {G}.workers where not is_alive order by 1") == [
        "dead", "idle",
    ]  # fmt: skip
    assert db.rows(SWEEP, "alive") == [("dead", 3, 1), ("idle", 0, 0)]
    (note,) = listener.notifies(timeout=10, stop_after=1)
    assert '"count":3' in note.payload
    assert db.rows(JOBS) == [
        *[(job, 0, None) for job in (*jobs, waiting)], (mine, 1, "alive"),
    ]  # fmt: skip
    assert db.rows(f"select queue_name, locked_by from {G}.queues order by 1") == [
        ("mine", "alive"), ("q", None),
    ]  # fmt: skip
    assert db.column(f"select worker_id from {G}.workers") == ["alive"]
    assert db.rows(SWEEP, "alive") == []
    assert not beat(db, "dead"), "it learns that its jobs were given away"
    assert beat(db, "dead")
    assert take(db, "new") == [jobs[0], jobs[1], jobs[2]]


def test_a_freed_queue_alone_wakes_others_too(db: Database) -> None:
    ready(db)
    job = add(db, queue_name="q")
    add(db, queue_name="q")
    die(db, "dead")
    take(db, "dead")
    db.rows(f"delete from {G}._private_jobs where id = %s", job)
    listener = db.connect()
    listener.execute('listen "jobs:insert"')
    assert db.rows(SWEEP, None) == [("dead", 0, 1)]
    assert len(list(listener.notifies(timeout=10, stop_after=1))) == 1


def test_a_job_survives_its_worker_three_times_and_then_counts_its_attempts(db: Database) -> None:
    ready(db)
    once, often = add(db, max_attempts=1), add(db, max_attempts=9)
    for crash in range(1, 4):
        die(db, "w")
        assert take(db, "w") == [once, often]
        db.rows(SWEEP, None)
        assert db.rows(f"select attempts, last_error from {G}.jobs") == [(0, None)] * 2, crash
    for crash in (4, 5):
        db.rows(f"update {G}._private_jobs set run_at = now()")
        die(db, "w")
        assert take(db, "w") == ([once, often] if crash == 4 else [often])
        db.rows(SWEEP, None)
        assert db.row(
            "select attempts, locked_by, last_error, abs(extract(epoch from run_at - updated_at)"
            f" - exp(attempts)) < 0.1 from {G}.jobs where id = %s",
            often,
        ) == (
            crash - 3, None,
            f"Its worker died while it ran the job, the last time worker w ({crash} times)",
            True,
        )  # fmt: skip
    assert db.row(f"select attempts, is_available from {G}._private_jobs where id = %s", once) == (
        1, False,
    )  # fmt: skip


def test_the_number_of_crashes_can_be_set_and_those_of_jobs_that_are_gone_are_forgotten(
    db: Database,
) -> None:
    ready(db)
    assert db.row(f"select * from {G}.set_recovery(max_crashes := 0)") == (
        timedelta(seconds=2), 0,
    )  # fmt: skip
    job = add(db)
    die(db, "w")
    take(db, "w")
    db.rows(SWEEP, None)
    assert db.row(f"select attempts from {G}.jobs") == (1,)
    assert db.rows(f"select job_id, crashes from {G}._private_crashes") == [(job, 1)]
    db.rows(f"select {G}.complete_jobs(%s)", [job])
    die(db, "w")
    db.rows(SWEEP, None)
    assert db.rows(f"select from {G}._private_crashes") == []


def test_recovery_has_bounds_and_null_leaves_it_alone(db: Database) -> None:
    ask = f"select * from {G}.set_recovery(%s, %s)"
    assert db.row(f"select * from {G}.set_recovery()") == (timedelta(seconds=30), 3)
    assert db.row(ask, "3 hours", 1000) == (timedelta(hours=3), 1000)
    assert db.row(ask, None, 0) == (timedelta(hours=3), 0)
    assert db.row(ask, "1 second", None) == (timedelta(seconds=1), 0)
    for bad in (("0.9 s", None), ("3 h 1 s", None), ("-1 day", None), (None, -1), (None, 1001)):
        with pytest.raises(psycopg.Error) as caught:
            db.rows(ask, *bad)
        assert caught.value.sqlstate == "GWBRE"
    assert db.value(f"select dead_after from {G}.heartbeat('w')") == timedelta(seconds=1)
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.rows(f"insert into {G}._private_settings (dead_after, max_crashes) values ('1 s', 1)")


@pytest.mark.parametrize("sweeper", ["steady for a moment only", "not heard of", "silent itself"])
def test_a_sweeper_that_was_cut_off_itself_presumes_nobody_dead(db: Database, sweeper: str) -> None:
    ready(db)
    die(db, "dead")
    if sweeper != "not heard of":
        steady(db, "w")
    if sweeper == "steady for a moment only":
        shift(db, "w", "alive_since", "-30 s")
    elif sweeper == "silent itself":
        shift(db, "w", "heartbeat_at", "1.5 s")
    assert db.rows(SWEEP, "w") == []
    steady(db, "w")
    assert db.rows(SWEEP, "w") == [("dead", 0, 0)]


def test_nobody_is_missed_for_the_time_before_the_server_started(db: Database) -> None:
    die(db, "w")
    shift(db, "w", "heartbeat_at", "4 days")
    db.rows(f"select {G}.set_recovery('3 hours')")
    assert db.value("select pg_postmaster_start_time() > now() - interval '2 hours'")
    assert db.value(f"select is_alive from {G}.workers")
    assert db.rows(SWEEP, None) == []


def test_two_sweepers_at_once_free_everything_once(db: Database) -> None:
    ready(db)
    job = add(db, queue_name="q")
    die(db, "dead")
    take(db, "dead")
    first, second = db.connect(autocommit=False), db.connect(autocommit=False)
    assert first.execute(SWEEP, (None,)).fetchall() == [("dead", 1, 1)]
    assert second.execute(SWEEP, (None,)).fetchall() == []
    first.rollback()
    assert second.execute(SWEEP, (None,)).fetchall() == [("dead", 1, 1)]
    assert first.execute(SWEEP, (None,)).fetchall() == []
    second.commit()
    assert first.execute(SWEEP, (None,)).fetchall() == []
    assert db.rows(JOBS) == [(job, 0, None)]
    assert db.rows(f"select crashes from {G}._private_crashes") == [(1,)]


def test_a_job_that_somebody_holds_does_not_stop_the_sweep_and_is_freed_by_the_next(
    db: Database,
) -> None:
    ready(db)
    held, free = add(db, job_key="k"), add(db, queue_name="q")
    die(db, "dead")
    take(db, "dead")
    adder = db.connect(autocommit=False)
    adder.execute(f"select {G}.add_job('t', job_key := 'k')")
    assert db.rows(SWEEP, None) == [("dead", 1, 1)]
    assert db.rows(JOBS) == [(held, 1, "dead"), (free, 0, None)]
    adder.rollback()
    assert db.rows(SWEEP, None) == [("dead", 1, 0)]
    assert db.rows(JOBS) == [(held, 0, None), (free, 0, None)]
    assert db.rows(f"select from {G}.workers") == []


def test_a_worker_that_comes_back_in_the_middle_of_its_sweep_is_told(db: Database) -> None:
    ready(db)
    held, free = add(db, job_key="k"), add(db)
    die(db, "dead")
    take(db, "dead")
    adder = db.connect(autocommit=False)
    adder.execute(f"select {G}.add_job('t', job_key := 'k')")
    assert db.rows(SWEEP, None) == [("dead", 1, 0)]
    adder.rollback()
    assert not beat(db, "dead")
    assert beat(db, "dead")
    assert db.rows(JOBS) == [(held, 1, "dead"), (free, 0, None)]
    assert db.value(f"select {G}.return_unknown_jobs('dead', '{{}}')") == 1
