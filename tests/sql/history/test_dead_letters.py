"""A job that fails for good is told of by another job, in the very transaction that gave it up."""

from __future__ import annotations

import pytest
from support.pg import Database

from sql.fetch.claims import add, take

LETTERS = (
    "select payload from graphile_worker._private_jobs where task_id ="
    " (select id from graphile_worker._private_tasks where identifier = %s) order by id"
)
FAIL = 'select graphile_worker.fail_jobs(\'w\', \'[{{"id": {job}, "error": "no"}}]\')'
#: By those who give a job up.
WAYS = {
    "the last attempt": FAIL,
    "a task that discards": "select graphile_worker.fail_jobs('w',"
    " '[{{\"id\": {job}, \"error\": \"no\", \"final\": true, \"discarded\": true}}]')",
    "an administrator": "select graphile_worker.return_jobs('w', array[{job}]);"
    " select graphile_worker.permanently_fail_jobs(array[{job}], 'no')",
    "Node": "update graphile_worker._private_jobs set last_error = 'no', locked_at = null,"
    " locked_by = null, run_at = now() + interval '1 s', attempts = max_attempts where id = {job}",
    "a stale lock": "update graphile_worker._private_jobs set last_error = 'no',"
    " locked_at = now() - interval '5 h', attempts = max_attempts where id = {job};"
    " select graphile_worker.release_stale_locks()",
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_job_is_added_whoever_gives_the_other_one_up(db: Database, way: str) -> None:
    assert db.value("select graphile_worker.on_dead_letter('notify_ops')") is None
    job = add(
        db,
        max_attempts=2 if "discards" in way else 1,
        queue_name="q",
        job_key="k",
        payload='{"a": 1}',
    )
    assert take(db) == [job]
    conn = db.connect(autocommit=False)
    for statement in WAYS[way].format(job=job).split(";"):
        conn.execute(statement.encode())
    assert db.rows(LETTERS, "notify_ops") == []
    conn.commit()
    (letter,) = db.column(LETTERS, "notify_ops")
    assert letter.pop("created_at") < letter.pop("failed_at")
    assert letter.pop("attempts") in (1, 2)
    assert letter.pop("max_attempts") in (1, 2)
    assert letter == {
        "job_id": job, "task": "t", "queue_name": "q", "job_key": "k", "payload": {"a": 1},
        "error": "no",
    }  # fmt: skip
    assert db.column("select id from graphile_worker.failed_jobs") == [job]


def test_a_job_that_is_retried_is_not_dead(db: Database) -> None:
    db.rows("select graphile_worker.on_dead_letter('notify_ops')")
    job = add(db)
    take(db)
    db.rows(FAIL.format(job=job))
    assert db.rows(LETTERS, "notify_ops") == []


def test_the_setting_of_a_task_goes_before_that_of_all(db: Database) -> None:
    db.rows("select graphile_worker.on_dead_letter('notify_ops')")
    db.rows("select graphile_worker.on_dead_letter('refund', 'pay')")
    assert db.rows("select failed_task, task from graphile_worker.dead_letters order by 1") == [
        ("*", "notify_ops"), ("pay", "refund"),
    ]  # fmt: skip
    for task in ("pay", "other"):
        job = add(db, task, max_attempts=1)
        assert take(db, tasks=[task]) == [job]
        db.rows(FAIL.format(job=job))
    assert [letter["task"] for letter in db.column(LETTERS, "refund")] == ["pay"]
    assert [letter["task"] for letter in db.column(LETTERS, "notify_ops")] == ["other"]
    assert db.value("select graphile_worker.on_dead_letter(null, 'pay')") == "refund"
    assert db.value("select graphile_worker.on_dead_letter(null)") == "notify_ops"
    assert db.value("select graphile_worker.on_dead_letter(null)") is None
    job = add(db, "pay", max_attempts=1)
    assert take(db, tasks=["pay"]) == [job]
    db.rows(FAIL.format(job=job))
    assert len(db.column(LETTERS, "refund")) == 1


def test_letters_make_no_letters(db: Database) -> None:
    db.rows("select graphile_worker.on_dead_letter('notify_ops')")
    job = add(db, "notify_ops", max_attempts=1)
    assert take(db) == [job]
    db.rows(FAIL.format(job=job))
    assert db.column("select id from graphile_worker.jobs") == [job]


def test_a_cancelled_job_is_not_dead(db: Database) -> None:
    db.rows("select graphile_worker.on_dead_letter('notify_ops')")
    db.rows("select graphile_worker.heartbeat('w')")
    job = add(db)
    assert take(db) == [job]
    db.rows("select graphile_worker.cancel_jobs(array[%s::bigint])", job)
    db.rows(FAIL.format(job=job))
    assert db.rows(LETTERS, "notify_ops") == []


def test_a_letter_that_is_refused_does_not_keep_the_job_from_failing(db: Database) -> None:
    db.rows("insert into graphile_worker._private_dead_letters values ('*', '')")
    job = add(db, max_attempts=1)
    assert take(db) == [job]
    notices: list[str] = []
    conn = db.connect()
    conn.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    conn.execute(FAIL.format(job=job).encode())
    assert db.column("select id from graphile_worker.failed_jobs") == [job]
    assert notices == [
        f'No job of task "" was added for the dead job {job}: Task identifier is empty'
    ]


def test_only_failed_jobs_are_discarded(db: Database) -> None:
    failed, waiting = add(db), add(db)
    db.rows("select graphile_worker.permanently_fail_jobs(array[%s::bigint])", failed)
    running = add(db, priority=-1)
    assert take(db, "w", 1) == [running]
    ids = [failed, waiting, running, 99]
    assert db.column("select id from graphile_worker.discard_jobs(%s)", ids) == [failed]
    assert db.column("select id from graphile_worker.jobs order by 1") == [waiting, running]
