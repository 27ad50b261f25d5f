"""Locks are given back: by a worker that stops, after a lost result, and where they are stuck."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.pg import Database, wait_for

from sql.workers.heartbeats import JOBS, SWEEP, G, add, age, beat, die, ready, shift, steady, take

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


#: Holds up whoever frees jobs, after that and before what comes next, while somebody holds lock 7.
PAUSE = f"""
create function public.pause() returns trigger language plpgsql as $$
begin
  if current_setting('test.pauses', true) = 'on' then
    while not pg_try_advisory_xact_lock(7) loop perform pg_sleep(0.01); end loop;
  end if;
  return null;
end $$;
create trigger pause after update on {G}._private_jobs
  for each statement execute function public.pause();
"""


@pytest.mark.parametrize(
    "free",
    [
        f"select {G}.force_unlock_workers(array['w'])",
        f"select {G}.end_worker('w')",
        f"select {G}.return_unknown_jobs('w', '{{}}')",
        f"select * from {G}.recover_dead_workers()",
    ],
)
def test_a_queue_stays_locked_for_a_job_that_was_claimed_meanwhile(db: Database, free: str) -> None:
    """The worker was not dead, and claims between the statement for jobs and that for queues."""
    ready(db)
    first = add(db, queue_name="q")
    die(db, "w")
    assert take(db, "w") == [first]
    late = [add(db, queue_name="late", priority=-1), add(db, queue_name="late")]
    db.rows(PAUSE)
    gate, freeing = db.connect(), db.connect()
    gate.execute("select pg_advisory_lock(7)")
    freeing.execute("set test.pauses = on")
    with ThreadPoolExecutor(1) as pool:
        freed = pool.submit(freeing.execute, free.encode())
        wait_for(
            lambda: db.value(
                "select wait_event = 'PgSleep' from pg_stat_activity where pid = %s",
                freeing.info.backend_pid,
            )
        )
        assert take(db, "w", 1) == late[:1]
        gate.execute("select pg_advisory_unlock(7)")
        freed.result()
    assert db.rows(f"select queue_name, locked_by from {G}.queues order by 1") == [
        ("late", "w"), ("q", None),
    ]  # fmt: skip
    assert take(db, "other") == [first], "the second job of the queue waits for the first"
