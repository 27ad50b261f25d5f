"""A heartbeat keeps a worker alive, says what comes next, and costs little."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from support.pg import Database, pages, wait_for

from sql.workers.heartbeats import JOBS, SWEEP, G, add, age, beat, die, ready, shift, steady, take


def test_who_adds_jobs_is_among_the_writing_transactions_until_the_end(db: Database) -> None:
    writing = f"select {G}.writing_transactions(%s)"
    add(db)  # the name is there: nobody waits for the other one
    assert db.value(writing, None) == []
    first, second = db.connect(autocommit=False), db.connect(autocommit=False)
    with first.transaction():
        first.execute(f"select {G}.add_job('t')")
        (one,) = db.value(writing, None)
        second.execute("savepoint s")
        second.execute(f"select {G}.add_job('t')")
        second.execute("release s")
        second.execute("select 1")
        assert len(both := db.value(writing, None)) == 2
        assert db.value(writing, [one, "9/9"]) == [one]
        # Nobody reads its own.
        assert first.execute(writing, (None,)).fetchone() == (
            [each for each in both if each != one],
        )
    assert db.value(writing, [one]) == []
    second.rollback()
    assert db.value(writing, both) == []


def test_a_beat_tells_whether_the_worker_is_known_and_what_comes_next(db: Database) -> None:
    ask = f"select * from {G}.heartbeat('w', '{{a,b}}', '{{\"host\": 1}}')"
    assert db.row(ask) == (False, timedelta(seconds=30), None, False)
    due = add(db)
    assert db.row(ask) == (True, timedelta(seconds=30), None, True)
    db.rows(f"select {G}.permanently_fail_jobs(%s)", [due])
    add(db, run_at="2099-01-01", priority=-5)
    add(db, run_at="2098-01-01", priority=5)
    gone = add(db, run_at="2097-01-01")
    db.rows(f"select {G}.permanently_fail_jobs(%s)", [gone])
    assert db.value(
        f"select abs(extract(epoch from next_job_in - ('2098-01-01' - now()))) < 60 from ({ask}) as beat"
    )
    assert not db.value(f"select is_due from ({ask}) as beat")
    assert db.row(
        "select worker_id, task_identifiers, details, is_alive, started_at <= heartbeat_at,"
        f" clock_timestamp() - heartbeat_at < interval '1 minute' from {G}.workers"
    ) == ("w", ["a", "b"], {"host": 1}, True, True, True)


def test_a_beat_carries_the_time_of_the_clock_and_not_of_its_transaction(db: Database) -> None:
    late = db.connect(autocommit=False)
    late.execute("select now()")
    first = db.value("select clock_timestamp()")
    late.execute(f"select {G}.heartbeat('w')")
    late.commit()
    assert db.value(f"select heartbeat_at > %s from {G}.workers", first)


@pytest.mark.parametrize("worker", [None, ""])
def test_a_worker_without_an_id_is_refused(db: Database, worker: str | None) -> None:
    with pytest.raises(psycopg.Error) as caught:
        beat(db, worker)  # type: ignore[arg-type]
    assert caught.value.sqlstate == "GWBWI"


def test_a_pool_that_never_beats_is_never_presumed_dead(db: Database) -> None:
    ready(db)
    job = add(db, queue_name="q")
    take(db, "node pool")
    age(db, "node pool", "3 h 59 min")
    assert db.rows(SWEEP, None) == []
    assert db.rows(JOBS) == [(job, 1, "node pool")]
    assert db.value(f"select locked_by from {G}.queues") == "node pool"


def test_a_gap_between_two_beats_starts_the_steady_time_again(db: Database) -> None:
    kept = (
        f"select alive_since < clock_timestamp() - interval '50 s', started_at <= alive_since"
        f" from {G}._private_heartbeats"
    )
    beat(db, "w")
    shift(db, "w", "started_at", "1 minute")
    shift(db, "w", "alive_since", "59 s")
    beat(db, "w")
    assert db.row(kept) == (True, True)
    shift(db, "w", "heartbeat_at", "14 s")
    beat(db, "w")
    assert db.row(kept) == (True, True)
    shift(db, "w", "heartbeat_at", "16 s")
    assert beat(db, "w"), "nobody swept it"
    assert db.row(kept) == (False, True)


def test_a_beat_under_way_keeps_its_worker_alive(db: Database) -> None:
    ready(db)
    job = add(db)
    die(db, "w")
    take(db, "w")
    late = db.connect(autocommit=False)
    late.execute(f"select {G}.heartbeat('w')")
    assert db.rows(SWEEP, None) == []
    late.commit()
    steady(db, "w")
    assert db.rows(SWEEP, None) == []
    assert db.rows(JOBS) == [(job, 1, "w")]


def test_a_beat_during_the_sweep_waits_and_says_unknown(db: Database) -> None:
    ready(db)
    die(db, "w")
    sweeper, late = db.connect(autocommit=False), db.connect()
    assert sweeper.execute(SWEEP, (None,)).fetchall() == [("w", 0, 0)]
    answer: list[Any] = []
    thread = threading.Thread(
        target=lambda: answer.append(
            late.execute(f"select is_known from {G}.heartbeat('w')").fetchone()
        )
    )
    thread.start()
    wait_for(
        lambda: db.rows(
            "select from pg_stat_activity where wait_event_type = 'Lock' and pid = %s",
            late.info.backend_pid,
        )
    )
    moment = db.value("select clock_timestamp()")
    sweeper.commit()
    thread.join()
    assert answer == [(False,)]
    assert db.value(f"select heartbeat_at > %s from {G}.workers", moment), "no old time is written"


def test_a_beat_makes_the_locks_of_a_long_job_younger_once_an_hour(db: Database) -> None:
    old = f"""
        select array(select locked_at < now() - interval '50 min' from {G}.jobs order by id),
          array(select locked_at < now() - interval '50 min' from {G}.queues order by id)"""
    add(db, queue_name="long")
    add(db)
    beat(db, "w")
    assert len(take(db, "w", 2)) == 2
    add(db, queue_name="other")
    take(db, "node")
    age(db, "w", "61 min")
    age(db, "node", "61 min")
    beat(db, "w")
    assert db.row(old) == ([True, True, True], [True, True])
    shift(db, "w", "refreshed_at", "61 min")
    beat(db, "w")
    assert db.row(old) == ([False, False, True], [False, True])
    assert db.value(f"select bool_and(updated_at < locked_at) from {G}.jobs where locked_by = 'w'")
    age(db, "w", "59 min")
    shift(db, "w", "refreshed_at", "61 min")
    beat(db, "w")
    assert db.row(old) == ([True, True, True], [True, True]), "it is young enough"
    age(db, "w", "61 min")
    beat(db, "w")
    assert db.row(old) == ([True, True, True], [True, True]), "it was done within the hour"


@pytest.mark.parametrize("analysed", ["never", "while it was small", "now"])
def test_the_next_job_is_found_without_reading_the_jobs(db: Database, analysed: str) -> None:
    """The guard on the plans: pages touched by a beat, however many jobs wait."""
    add(db)
    beat(db, "w")
    if analysed == "while it was small":
        db.rows(f"analyze {G}._private_jobs")
    db.rows(
        f"insert into {G}._private_jobs (task_id, run_at, priority)"
        " select 1, now() + case when i % 2 = 0 then interval '1 day' else interval '-1 day' end,"
        " i % 7 from generate_series(1, 60000) i"
    )
    if analysed == "now":
        db.rows(f"vacuum analyze {G}._private_jobs")
    assert pages(db, f"select * from {G}.heartbeat('w')") < 1000
    seen = "select seq_scan from pg_stat_xact_user_tables where relname = '_private_jobs'"
    connection = db.connect(autocommit=False)
    connection.execute(f"select {G}.heartbeat('w')")
    connection.execute(f"select {G}.recover_dead_workers('w')")
    assert connection.execute(seen).fetchone() == (0,)
