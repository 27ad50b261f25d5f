"""A cancelled job runs no more, and has exactly one end, whatever happens at the same time."""

from __future__ import annotations

import itertools

import pytest
from support.pg import Database

from sql.fetch.claims import add, take

CANCEL = "select job_id, outcome from graphile_worker.cancel_jobs(%s, %s)"
REVIEW = "select job_id, verdict, reason, requested_by from graphile_worker.review_jobs(%s, %s)"


def beat(db: Database, worker: str = "w") -> None:
    db.rows("select * from graphile_worker.heartbeat(%s)", worker)


def test_each_job_is_told_what_became_of_it(db: Database) -> None:
    beat(db)
    failed = add(db, max_attempts=1)
    db.rows("select graphile_worker.permanently_fail_jobs(array[%s::bigint])", failed)
    running = add(db, priority=-2, job_key="k", queue_name="q")
    of_node = add(db, priority=-1)
    assert take(db, "w", 1) == [running]
    assert take(db, "node", 1) == [of_node]
    waiting, later = add(db), add(db, run_at=db.value("select now() + interval '1 day'"))
    ids = [later, 10**9, running, of_node, failed, waiting, waiting]
    assert db.rows(CANCEL, ids, "wrong customer") == [
        (later, "cancelled"), (10**9, "missing"), (running, "cancelling"),
        (of_node, "not_cancellable"), (failed, "failed"), (waiting, "cancelled"),
        (waiting, "cancelled"),
    ]  # fmt: skip
    assert db.column("select id from graphile_worker.jobs order by id") == [
        failed,
        running,
        of_node,
    ]
    assert db.rows(REVIEW, "w", None) == [(running, "cancelled", "wrong customer", "postgres")]
    assert db.rows(REVIEW, "node", None) == []
    error = db.value("select last_error from graphile_worker.jobs where id = %s", running)
    assert error == "Cancelled by postgres: wrong customer"
    # its key is free
    assert add(db, job_key="k", run_at=db.value("select now() + interval '1 day'")) != running
    assert db.rows(CANCEL, [], None) == []


ENDS = {
    "finish": "select * from graphile_worker.finish_jobs('w', array[{job}])",
    "fail": """select * from graphile_worker.fail_jobs('w', '[{{"id": {job}, "error": "x"}}]')""",
    "return": "select * from graphile_worker.return_jobs('w', array[{job}])",
    "pause": "select graphile_worker.return_and_pause('w', {job}, 'queue', now() + interval '1 h')",
    "end": "select graphile_worker.end_worker('w')",
    "lost": "select graphile_worker.return_unknown_jobs('w', '{{}}')",
    "unlock": "select graphile_worker.force_unlock_workers(array['w'])",
    "die": "update graphile_worker._private_heartbeats set heartbeat_at = heartbeat_at - interval '1 h',"
    " alive_since = alive_since - interval '1 h';"
    " select * from graphile_worker.recover_dead_workers()",
    "stale": "update graphile_worker._private_jobs set locked_at = locked_at - interval '5 h';"
    " update graphile_worker._private_job_queues set locked_at = locked_at - interval '5 h';"
    " delete from graphile_worker._private_heartbeats;"
    " select * from graphile_worker.release_stale_locks()",
}


@pytest.mark.parametrize("end", list(ENDS))
def test_a_cancelled_job_does_not_run_again_however_its_run_ends(db: Database, end: str) -> None:
    beat(db)
    job = add(db, queue_name="q", job_key="k")
    assert take(db) == [job]
    assert db.rows(CANCEL, [job], "enough") == [(job, "cancelling")]
    if end == "die":  # no server that has just started presumes anyone dead
        db.rows("select graphile_worker.set_recovery('1 second')")
        while db.value("select now() - pg_postmaster_start_time() < interval '1 s'"):
            pass
    for statement in ENDS[end].format(job=job).split(";"):
        db._main().execute(statement.encode())
    rows = db.rows(
        "select locked_by, attempts >= max_attempts, last_error from graphile_worker.jobs"
    )
    if end == "finish":
        assert rows == [], "it was done before it could be stopped"
    else:
        ((locked_by, is_final, error),) = rows
        assert (locked_by, is_final) == (None, True)
        assert error == ("x" if end == "fail" else "Cancelled by postgres: enough")
    assert db.rows(REVIEW, "w", None) == []
    db.rows("select graphile_worker.resume_queue('q')")
    assert take(db) == []
    following = add(db, queue_name="q")
    assert take(db, "other") == [following], "the queue is free"


def test_a_cancelled_job_that_is_retried_by_hand_is_not_cancelled_again(db: Database) -> None:
    beat(db)
    job = add(db)
    take(db)
    db.rows(CANCEL, [job], None)
    db.rows("select * from graphile_worker.fail_jobs('w', %s)", f'[{{"id": {job}}}]')
    db.rows(
        "select graphile_worker.reschedule_jobs(array[%s::bigint], attempts := 0, run_at := now())",
        job,
    )
    assert take(db) == [job]
    assert db.rows(REVIEW, "w", None) == []
    db.rows("select * from graphile_worker.finish_jobs('w', array[%s::bigint])", job)
    db.rows("select * from graphile_worker.release_stale_locks()")
    assert db.value("select count(*) from graphile_worker._private_cancellations") == 0


STEPS = {
    "cancel": "select outcome from graphile_worker.cancel_jobs(array[{job}::bigint], 'r')",
    "finish": "select done::text from graphile_worker.finish_jobs('w', array[{job}::bigint])",
    "retry": """select done::text from graphile_worker.fail_jobs('w', '[{{"id": {job}}}]')""",
    "add again": "select (id <> {job})::text from graphile_worker.add_job('t', job_key := 'k')",
}


@pytest.mark.parametrize("order", list(itertools.permutations(STEPS, 3)), ids=" ".join)
@pytest.mark.parametrize("overlap", [False, True], ids=["one by one", "overlapping"])
def test_in_whatever_order_they_come_there_is_one_end(
    db: Database, order: tuple[str, ...], overlap: bool
) -> None:
    """The first two overlap, if asked: the second one starts before the first has committed."""
    beat(db)
    job = add(db, job_key="k")
    assert take(db) == [job]
    said: dict[str, str] = {}
    if overlap:
        import threading

        first, second = db.connect(autocommit=False), db.connect()
        ((said[order[0]],),) = first.execute(STEPS[order[0]].format(job=job).encode()).fetchall()

        def run_second() -> None:
            ((said[order[1]],),) = second.execute(
                STEPS[order[1]].format(job=job).encode()
            ).fetchall()

        other = threading.Thread(target=run_second)
        other.start()
        other.join(0.05)
        first.commit()
        other.join()
    else:
        for step in order[:2]:
            said[step] = db.value(STEPS[step].format(job=job))
    said[order[2]] = db.value(STEPS[order[2]].format(job=job))

    there = db.rows(
        "select attempts >= max_attempts, locked_by from graphile_worker.jobs where id = %s", job
    )
    ended = [step for step in ("finish", "retry") if said.get(step) == "true"]
    assert len(ended) <= 1, "it ends once"
    if ended == ["finish"]:
        assert there == []
        assert said.get("cancel") in (None, "cancelling", "missing")
    elif said.get("cancel") == "cancelled":
        assert there == [], "it was waiting for its retry"
    elif said.get("cancel") == "cancelling":
        ((is_final, _),) = there
        assert is_final
    taken = set(take(db, "other")) | set(take(db, "other"))
    if said.get("cancel") in ("cancelling", "cancelled"):
        assert job not in taken or said.get("add again") == "false"
    if "add again" in said and said["add again"] == "true":
        assert db.value("select count(*) from graphile_worker.jobs where key = 'k'") <= 1


def test_prefetched_jobs_of_what_is_paused_are_to_be_returned(db: Database) -> None:
    jobs = [add(db, queue_name="q"), add(db, "u"), add(db, "v"), add(db, "v", queue_name="r")]
    assert take(db) == jobs
    other = add(db, "u")
    db.rows(
        "select graphile_worker.pause_task('u', reason := 'x'), graphile_worker.pause_queue('r*')"
    )
    assert take(db, "other", tasks=["v"]) == []
    assert sorted(db.rows(REVIEW, "w", [*jobs, other])) == [
        (jobs[1], "paused", "x", "postgres"), (jobs[3], "paused", None, "postgres"),
    ]  # fmt: skip
    db.rows("select graphile_worker.pause_all()")
    assert len(db.rows(REVIEW, "w", jobs)) == 4
