"""Jobs that end are recorded where their history is kept, with the very commit that ended them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import psycopg
import pytest
from support.pg import Database, pages, wait_for

from sql.fetch.claims import add, take

KEEP = "select graphile_worker.keep_history({})"
FINISH = "select job_id, done from graphile_worker.finish_jobs_with_results(%s, %s, %s::text[]::json[], %s)"
HISTORY = "select job_id, state, error from graphile_worker.job_history order by finished_at"


def keep(db: Database, how: str = "") -> None:
    db.rows(KEEP.format(how))


def beat(db: Database, worker: str = "w") -> None:
    db.rows("select * from graphile_worker.heartbeat(%s)", worker)


def job_of(db: Database, job: int) -> dict[str, Any]:
    return dict(db.value("select to_jsonb(found) from graphile_worker.get_job(%s) as found", job))


@pytest.mark.parametrize("seconds", [None, 0, 1e-6, 5])
def test_no_job_ends_before_its_last_attempt_does(db: Database, seconds: float | None) -> None:
    keep(db)
    add(db)
    (job,) = take(db)
    failures = json.dumps([{"id": job, "error": "no", "final": True, "seconds": seconds}])
    db.rows("select graphile_worker.fail_jobs('w', %s)", failures)
    found = job_of(db, job)
    (attempt,) = found["attempt_log"]
    times = [attempt["started_at"], attempt["ended_at"], found["finished_at"]]
    assert times == sorted(times, key=datetime.fromisoformat)


def test_nothing_is_recorded_until_it_is_asked_for(db: Database) -> None:
    add(db)
    (job,) = take(db)
    assert db.rows(FINISH, "w", [job], None, None) == [(job, True)]
    assert db.rows("select from graphile_worker.job_history") == []
    assert db.rows("select from graphile_worker.get_job(%s)", job) == []
    assert db.rows("select * from graphile_worker.get_results(array[%s::bigint])", job) == [
        (job, None, None, None, None, None)
    ]


def test_a_completed_job_is_found_with_its_result(db: Database) -> None:
    keep(db, "payloads => true")
    job = add(db, queue_name="q", job_key="k", priority=3, flags=["f"], payload='{"a":  1}')
    assert job_of(db, job)["state"] == "ready"
    assert take(db) == [job]
    assert job_of(db, job)["state"] == "running"
    assert db.rows(FINISH, "w", [job, job, 5], ['{"b":  2}', '{"b":  2}', None], [1.5, 1.5, 2.0]) == [
        (job, True), (job, True), (5, False),
    ]  # fmt: skip
    found = job_of(db, job)
    wanted = {
        "id": job, "state": "completed", "task_identifier": "t", "queue_name": "q", "key": "k",
        "priority": 3, "flags": {"f": True}, "payload": {"a": 1}, "attempts": 1,
        "max_attempts": 25, "worker_id": "w", "result": {"b": 2}, "duration": "00:00:01.5",
        "error": None, "result_problem": None,
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted
    (attempt,) = found["attempt_log"]
    assert (attempt["attempt"], attempt["outcome"], attempt["error"]) == (1, "completed", None)
    assert attempt["started_at"] < attempt["ended_at"]
    # as it was written, to the letter
    assert db.value("select result::text from graphile_worker.job_history") == '{"b":  2}'


def test_a_worker_that_keeps_results_back_is_asked_for_them(db: Database) -> None:
    keep(db, "'kept'")
    ids = [add(db, task) for task in ("kept", "other", "kept")]
    assert sorted(take(db, "w", 3)) == sorted(ids)
    assert db.rows(FINISH, "w", ids, None, None) == [
        (ids[0], None), (ids[1], True), (ids[2], None),
    ]  # fmt: skip
    assert db.rows(FINISH, "x", ids, None, None) == [(each, False) for each in ids]
    assert db.rows(FINISH, "w", [ids[2], ids[0]], ["2", None], None) == [
        (ids[2], True), (ids[0], True),
    ]  # fmt: skip
    results = "select job_id, state, result from graphile_worker.get_results(%s)"
    assert db.rows(results, [*ids, 77]) == [
        (ids[0], "completed", None), (ids[1], None, None), (ids[2], "completed", 2),
        (77, None, None),
    ]  # fmt: skip


def test_finish_jobs_records_without_a_result(db: Database) -> None:
    keep(db)
    job = add(db)
    assert take(db) == [job]
    db.rows("select * from graphile_worker.finish_jobs('w', array[%s::bigint])", job)
    assert db.rows(HISTORY) == [(job, "completed", None)]


def test_results_are_bounded_and_can_be_left_out(db: Database) -> None:
    keep(db, "'long', max_bytes => 10")
    keep(db, "'bare', results => false")
    long, bare = add(db, "long"), add(db, "bare")
    assert len(take(db, "w", 2)) == 2
    db.rows(FINISH, "w", [long, bare], ['"123456789"', "1"], None)
    assert db.rows(
        "select job_id, result, result_problem from graphile_worker.job_history order by job_id"
    ) == [
        (long, None, "The result has 11 bytes, and max_bytes of keep_history is 10"),
        (bare, None, "Results are not kept: see keep_history"),
    ]
    job = add(db, "long", max_attempts=1)
    assert take(db) == [job]
    db.rows(
        "select graphile_worker.fail_jobs('w', json_build_array(json_build_object('id', %s::bigint,"
        " 'error', repeat('é', 100))))",
        job,
    )
    assert job_of(db, job)["attempt_log"][0]["error"] == "é" * 10


def test_every_attempt_is_recorded(db: Database) -> None:
    keep(db)
    job = add(db, max_attempts=3)
    for error in ("one", "two"):
        assert take(db) == [job]
        db.rows(
            "select graphile_worker.fail_jobs('w', json_build_array(json_build_object("
            "'id', %s::bigint, 'error', %s::text, 'run_at', now(), 'seconds', 2)))",
            job, error,
        )  # fmt: skip
    assert [a["error"] for a in job_of(db, job)["attempt_log"]] == ["one", "two"]
    assert take(db) == [job]
    db.rows(FINISH, "w", [job], ["true"], [0.5])
    log = job_of(db, job)["attempt_log"]
    assert [(a["attempt"], a["outcome"], a["error"], a["worker_id"]) for a in log] == [
        (1, "failed", "one", "w"), (2, "failed", "two", "w"), (3, "completed", None, "w"),
    ]  # fmt: skip
    assert db.value("select count(*) from graphile_worker._private_attempts") == 0


FAILURES = {
    "failed": "select graphile_worker.fail_jobs('w', '[{{\"id\": {job}, \"error\": \"x\"}}]')",
    "discarded": "select graphile_worker.fail_jobs('w', '[{{\"id\": {job}, \"error\": \"x\","
    " \"final\": true, \"discarded\": true}}]')",
    "node": "update graphile_worker._private_jobs set last_error = 'x', locked_at = null,"
    " locked_by = null, run_at = now() + interval '1 s' where id = {job}",
    "stale": "update graphile_worker._private_jobs set locked_at = now() - interval '5 h',"
    " last_error = 'x'; select * from graphile_worker.release_stale_locks()",
}  # fmt: skip


@pytest.mark.parametrize("how", FAILURES)
def test_a_job_that_fails_for_good_stays_and_is_recorded_whoever_says_so(
    db: Database, how: str
) -> None:
    keep(db)
    job = add(db, max_attempts=1)
    assert take(db) == [job]
    for statement in FAILURES[how].format(job=job).split(";"):
        db._main().execute(statement.encode())
    state = "discarded" if how == "discarded" else "failed"
    assert db.rows(HISTORY) == [(job, state, "x")]
    row = db.row("select id, last_error, attempt_log from graphile_worker.failed_jobs")
    assert row[:2] == (job, "x")
    assert [(a["worker_id"], a["outcome"], a["error"]) for a in row[2]] == [("w", state, "x")]
    assert db.row("select state, error from graphile_worker.get_results(array[%s::bigint])", job) == (
        "failed", "x",
    )  # fmt: skip
    # it is tried again, and succeeds
    db.rows("select graphile_worker.reschedule_jobs(array[%s::bigint], now(), attempts => 0)", job)
    assert take(db) == [job]
    db.rows(FINISH, "w", [job], ["1"], None)
    assert [row[1] for row in db.rows(HISTORY)] == [state, "completed"]
    assert [a["outcome"] for a in job_of(db, job)["attempt_log"]] == [state, "completed"]


def test_jobs_that_others_end_are_recorded(db: Database) -> None:
    keep(db)
    completed, failed, cancelled = (add(db) for _ in range(3))
    removed = add(db, job_key="k")
    db.rows("select graphile_worker.complete_jobs(array[%s::bigint])", completed)
    db.rows("select graphile_worker.permanently_fail_jobs(array[%s::bigint], 'no')", failed)
    db.rows("select graphile_worker.cancel_jobs(array[%s::bigint], 'late')", cancelled)
    db.rows("select graphile_worker.remove_job('k')")
    db.rows("select graphile_worker.discard_jobs(array[%s, 5]::bigint[], 'old')", failed)
    assert db.rows(HISTORY) == [
        (completed, "completed", None), (failed, "failed", "no"),
        (cancelled, "cancelled", "Cancelled by postgres: late"),
        (removed, "cancelled", "Removed by postgres"),
        (failed, "discarded", "Discarded by postgres: old"),
    ]  # fmt: skip
    assert db.rows("select id from graphile_worker.jobs") == []


def test_a_job_that_was_cancelled_while_it_ran_moves_to_the_history(db: Database) -> None:
    keep(db)
    beat(db)
    job = add(db, queue_name="q")
    assert take(db) == [job]
    db.rows("select graphile_worker.cancel_jobs(array[%s::bigint], 'enough')", job)
    assert db.rows(
        f'select * from graphile_worker.fail_jobs(\'w\', \'[{{"id": {job}, "error": "stopped"}}]\')'
    ) == [(job, True)]
    assert db.rows("select id from graphile_worker.jobs") == []
    assert db.rows(HISTORY) == [(job, "cancelled", "stopped")]
    assert db.value("select locked_by from graphile_worker.queues") is None


def test_a_worker_that_dies_is_an_attempt(db: Database) -> None:
    keep(db)
    beat(db)
    job = add(db)
    assert take(db) == [job]
    db.rows("select graphile_worker.set_recovery('1 second', 0)")
    db.rows("update graphile_worker._private_jobs set max_attempts = 1")
    while db.value("select now() - pg_postmaster_start_time() < interval '1 s'"):
        pass
    db.rows(
        "update graphile_worker._private_heartbeats set heartbeat_at = now() - interval '1 h',"
        " alive_since = now() - interval '1 h'"
    )
    db.rows("select * from graphile_worker.recover_dead_workers()")
    (record,) = db.rows(HISTORY)
    assert record[:2] == (job, "failed")
    (attempt,) = job_of(db, job)["attempt_log"]
    assert (attempt["outcome"], attempt["worker_id"]) == ("crashed", "w")


def test_a_task_can_be_left_out_and_all_can_be_ended(db: Database) -> None:
    keep(db)
    assert db.value("select graphile_worker.stop_history('noisy')") is True
    assert db.value("select graphile_worker.stop_history('noisy')") is False
    jobs = [add(db, "noisy"), add(db, "t")]
    take(db, "w", 2)
    db.rows(FINISH, "w", jobs, ["1", "1"], None)
    assert [row[0] for row in db.rows(HISTORY)] == jobs[1:]
    assert db.value("select graphile_worker.stop_history()") is True
    assert db.value("select graphile_worker.stop_history()") is False
    job = add(db, "t")
    take(db)
    assert db.rows(FINISH, "w", [job], None, None) == [(job, True)]
    assert [row[0] for row in db.rows(HISTORY)] == jobs[1:]


@pytest.mark.parametrize(
    ("call", "state", "said"),
    [
        (
            "keep_history(keep => '1 s')",
            "GWBHI",
            "Time to keep history for is out of range: 00:00:01",
        ),
        ("keep_history(keep => null)", "GWBHI", "Time to keep history for is out of range"),
        ("keep_history(keep => '200 years')", "GWBHI", "out of range: 200 years"),
        ("keep_history('')", "GWBHI", "Task name has 0 characters"),
        ("keep_history(max_bytes => -1)", "GWBHI", "Max bytes is out of range: -1"),
        ("keep_history(results => null)", "GWBHI", "Results <NULL> and payloads f"),
        ("keep_failed_jobs('1 s')", "GWBHI", "Time to keep failed jobs for is out of range"),
        ("watch_results('')", "GWBHI", "Waiter or seconds is out of range"),
        ("watch_results('a', 4000)", "GWBHI", "Waiter or seconds is out of range"),
        ("report_progress('w', 1, 1.5)", "GWBHI", "Progress is out of range: 1.5"),
        ("on_dead_letter('')", "GWBID", "Task identifier is empty or too long"),
    ],
)
def test_what_cannot_be_is_refused_with_the_value(
    db: Database, call: str, state: str, said: str
) -> None:
    with pytest.raises(psycopg.Error, match=said.replace("(", r"\(")) as raised:
        db.rows(f"select graphile_worker.{call}")
    assert raised.value.sqlstate == state
    assert raised.value.diag.message_hint


def test_whoever_may_only_add_jobs_reads_no_error_unless_history_is_kept(db: Database) -> None:
    job = add(db)
    db.rows("select graphile_worker.permanently_fail_jobs(array[%s::bigint], 'a secret')", job)
    role = f"{db.name}_clerk"
    db.rows(f"create role {role} login")
    try:
        db.rows("select graphile_worker.grant_access(%s, 'enqueue')", role)
        clerk = db.connect(role=role)
        results = (
            f"select state, error, results_are_kept from graphile_worker.get_results('{{{job}}}')"
        )
        assert clerk.execute(results.encode()).fetchall() == [("failed", None, False)]
        keep(db)
        assert clerk.execute(results.encode()).fetchall() == [("failed", "a secret", True)]
        for call in (f"get_job({job})", f"discard_jobs('{{{job}}}')", "keep_history()"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                clerk.execute(f"select graphile_worker.{call}".encode())
        clerk.close()
    finally:
        db.rows(f"drop owned by {role}")
        db.rows(f"drop role {role}")


def test_a_fetch_reads_as_much_with_history_as_without(db: Database) -> None:
    def touched() -> int:
        db.rows(
            "select count(*) from generate_series(1, 200) as n, graphile_worker.add_job('t') as j"
        )
        db.rows("vacuum analyze graphile_worker._private_jobs")
        return pages(db, "select count(*) from graphile_worker.get_jobs('w', 10)")

    db.rows("select count(*) from graphile_worker.get_jobs('w', 1)")
    before = min(touched(), touched())
    keep(db)
    for job in take(db, "w", 5):
        db.rows(FINISH, "w", [job], ["1"], None)
    # While the server analyzes some table by itself, vacuum leaves dead rows in the way.
    wait_for(lambda: touched() <= before + 5)
