"""Completing, failing and returning jobs, by their worker and by an administrator."""

from __future__ import annotations

import json

import psycopg
import pytest
from support.pg import Database

from sql.fetch.claims import add, take


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
