"""Workers that die are missed soon, once, and only they: heartbeats, sweeps and what is given back."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from support.pg import Database, pages, wait_for

G = "graphile_worker"
SWEEP = f"select * from {G}.recover_dead_workers(%s)"
JOBS = f"select id, attempts, locked_by from {G}.jobs order by id"


def add(db: Database, task: str = "t", **options: Any) -> int:
    names = "".join(f", {name} := %s" for name in options)
    job: int = db.value(f"select id from {G}.add_job(%s{names})", task, *options.values())
    return job


def take(db: Database, worker: str, n: int = 100) -> list[int]:
    return db.column(f"select id from {G}.get_jobs(%s, %s)", worker, n)


def beat(db: Database, worker: str) -> bool:
    known: bool = db.value(f"select is_known from {G}.heartbeat(%s)", worker)
    return known


def shift(db: Database, worker: str, column: str, ago: str) -> None:
    """Move one of the times of a worker."""
    db.rows(
        f"update {G}._private_heartbeats set {column} = clock_timestamp() - %s::interval"
        " where worker_id = %s",
        ago,
        worker,
    )


def age(db: Database, worker: str, ago: str) -> None:
    """Make the locks of a worker older."""
    for table in ("_private_jobs", "_private_job_queues"):
        db.rows(
            f"update {G}.{table} set locked_at = now() - %s::interval where locked_by = %s",
            ago,
            worker,
        )


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


def ready(db: Database) -> Database:
    """Make 2 seconds of silence enough, and wait until the server has been up for longer."""
    db.rows(f"select {G}.set_recovery('2 seconds')")
    wait_for(
        lambda: db.value("select clock_timestamp() > pg_postmaster_start_time() + interval '3 s'")
    )
    return db


def die(db: Database, worker: str) -> None:
    beat(db, worker)
    shift(db, worker, "heartbeat_at", "1 minute")


def steady(db: Database, worker: str) -> None:
    """A worker that beats without a gap, whatever the machine that runs the test does."""
    beat(db, worker)
    shift(db, worker, "heartbeat_at", "-1 minute")
    shift(db, worker, "alive_since", "1 minute")


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


def test_a_pool_that_never_beats_is_never_presumed_dead(db: Database) -> None:
    ready(db)
    job = add(db, queue_name="q")
    take(db, "node pool")
    age(db, "node pool", "3 h 59 min")
    assert db.rows(SWEEP, None) == []
    assert db.rows(JOBS) == [(job, 1, "node pool")]
    assert db.value(f"select locked_by from {G}.queues") == "node pool"


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


GIVE_BACK = {
    "sweep": f"select * from {G}.recover_dead_workers()",
    "stop": f"select {G}.end_worker('w')",
    "unknown": f"select {G}.return_unknown_jobs('w', '{{}}')",
    "return": f"select {G}.return_jobs('w', array(select id from {G}.jobs where locked_by = 'w'))",
}


@pytest.mark.parametrize("refreshed", [False, True])
@pytest.mark.parametrize("change", ["add_job", "add_jobs", "remove_job"])
@pytest.mark.parametrize("how", GIVE_BACK)
def test_a_running_job_that_lost_its_key_never_runs_again(
    db: Database, how: str, change: str, refreshed: bool
) -> None:
    ready(db)
    old, last = add(db, job_key="k"), add(db, max_attempts=1)
    die(db, "w")
    assert take(db, "w") == [old, last]
    db.rows(
        {
            "add_job": f"select {G}.add_job('t', job_key := 'k')",
            "add_jobs": f"select {G}.add_jobs(array[row('t', '{{}}', null, null, null, 'k', null, null)"
            f"::{G}.job_spec])",
            "remove_job": f"select {G}.remove_job('k')",
        }[change]
    )
    if refreshed:
        age(db, "w", "3 hours")
        db.rows(
            f"update {G}._private_jobs set updated_at = locked_at + interval '1 hour' where id = %s",
            old,
        )
        db.rows(
            f"update {G}._private_jobs set updated_at = created_at - interval '1 day' where id = %s",
            last,
        )
        shift(db, "w", "refreshed_at", "2 hours")
        beat(db, "w")
        shift(db, "w", "heartbeat_at", "1 minute")
    db.rows(GIVE_BACK[how])
    new = db.column(f"select id from {G}.jobs where key = 'k'")
    assert len(new) == (0 if change == "remove_job" else 1)
    assert take(db, "other") == sorted([last, *new]), "its last attempt was given back"
    assert db.row(f"select attempts = max_attempts from {G}.jobs where id = %s", old) == (True,)


def test_a_worker_that_stops_gives_back_what_it_holds(db: Database) -> None:
    jobs = [add(db, queue_name="q"), add(db)]
    other = add(db, queue_name="other")
    beat(db, "w")
    assert take(db, "w", 2) == jobs
    assert take(db, "v") == [other]
    db.rows(f"update {G}._private_jobs set attempts = 0 where id = %s", jobs[1])
    listener = db.connect()
    listener.execute('listen "jobs:insert"')
    assert db.value(f"select {G}.end_worker('w')") == 2
    assert len(list(listener.notifies(timeout=10, stop_after=1))) == 1
    assert db.rows(JOBS) == [(jobs[0], 0, None), (jobs[1], 0, None), (other, 1, "v")]
    assert db.column(f"select locked_by from {G}.queues order by queue_name") == ["v", None]
    assert db.rows(f"select from {G}.workers") == []
    assert db.value(f"select {G}.end_worker('w')") == 0
    assert not beat(db, "w")


def test_jobs_whose_taker_never_heard_of_them_go_back(db: Database) -> None:
    known, lost = add(db, queue_name="known"), add(db, queue_name="lost")
    beat(db, "w")
    take(db, "w")
    foreign = add(db)
    take(db, "v")
    assert db.value(f"select {G}.return_unknown_jobs('w', %s)", [known, 404, None]) == 1
    assert db.rows(JOBS) == [(known, 1, "w"), (lost, 0, None), (foreign, 1, "v")]
    assert db.rows(f"select queue_name, locked_by from {G}.queues order by 1") == [
        ("known", "w"), ("lost", None),
    ]  # fmt: skip
    assert db.value(f"select {G}.return_unknown_jobs('w', %s)", [known]) == 0
    assert db.value(f"select {G}.return_unknown_jobs('w', null)") == 1
    assert db.column(f"select worker_id from {G}.workers") == ["w"]


def test_locks_of_a_living_worker_are_never_stale(db: Database) -> None:
    ready(db)
    for worker in ("living", "silent", "node"):
        add(db, queue_name=worker)
        take(db, worker)
        age(db, worker, "5 hours")
    steady(db, "living")
    die(db, "silent")
    assert db.row(f"select * from {G}.release_stale_locks()") == (2, 2)
    assert db.column(f"select locked_by from {G}.jobs where locked_by is not null") == ["living"]
    assert db.column(f"select locked_by from {G}.queues where locked_by is not null") == ["living"]


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


def test_only_queues_that_are_stuck_are_unlocked(db: Database) -> None:
    for queue in ("busy", "stuck", "stuck too", "free"):
        add(db, queue_name=queue)
    assert len(take(db, "w")) == 4
    db.rows(
        f"update {G}._private_jobs j set locked_at = null, locked_by = null"
        f" from {G}.queues q where q.id = j.job_queue_id and queue_name like 'stuck%'"
    )
    db.rows(
        f"select {G}.finish_jobs('w', array(select id from {G}.jobs where queue_name = 'free'))"
    )
    assert db.column(f"select {G}.unlock_queues('{{stuck too,busy,free,nobody}}')") == ["stuck too"]
    taker = db.connect(autocommit=False)
    taker.execute(f"select {G}.get_jobs('x')")
    assert db.column(f"select {G}.unlock_queues()") == ["stuck"]
    taker.commit()
    assert db.column(f"select {G}.unlock_queues()") == []
    assert db.column(f"select queue_name from {G}.queues where locked_at is not null order by 1") == [
        "busy", "stuck too",
    ]  # fmt: skip


def test_a_role_with_the_level_work_can_be_a_worker(db: Database) -> None:
    ready(db)
    role = f"role_{uuid.uuid4().hex}"
    db.rows(f"create role {role} login")
    try:
        db.rows(f"select {G}.grant_access(%s, 'work')", role)
        add(db)
        die(db, "dead")
        take(db, "dead")
        worker = db.connect(role=role)
        worker.execute(f"select * from {G}.heartbeat('w')")
        assert worker.execute(SWEEP, (None,)).fetchall() == [("dead", 1, 0)]
        worker.execute(f"select * from {G}.get_jobs('w')")
        answer = worker.execute(f"select {G}.return_unknown_jobs('w', '{{}}')").fetchone()
        assert answer == (1,)
        assert worker.execute(f"select {G}.end_worker('w')").fetchone() == (0,)
    finally:
        db.rows(f"drop owned by {role}")
        db.rows(f"drop role {role}")


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
