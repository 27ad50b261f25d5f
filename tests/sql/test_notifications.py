"""Which jobs notify workers, and how often."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from support.pg import Database

SPEC = "row({}, {}, null, null, null, {}, null, null)::graphile_worker.job_spec"


def wakes(db: Database, *statements: str) -> list[str]:
    """Return the payloads that the statements, each its own transaction, sent to the workers."""
    listener = db.connect()
    listener.execute('listen "jobs:insert"')
    for statement in statements:
        db.rows(statement)
    return [note.payload for note in listener.notifies(timeout=0.3)]


def counts(payloads: list[str]) -> list[Any]:
    import json

    return [json.loads(payload)["count"] for payload in payloads]


def test_a_due_job_wakes_one_and_a_future_one_nobody(db: Database) -> None:
    assert counts(wakes(db, "select graphile_worker.add_job('t')")) == [1]
    assert wakes(db, "select graphile_worker.add_job('t', run_at := now() + '1 hour')") == []


def test_a_keyed_job_that_becomes_due_wakes_somebody(db: Database) -> None:
    later = "select graphile_worker.add_job('t', run_at := now() + '1 hour', job_key := 'k')"
    now = "select graphile_worker.add_job('t', job_key := 'k')"
    dedupe = "select graphile_worker.add_job('t', job_key := 'k', job_key_mode := 'unsafe_dedupe')"
    assert counts(wakes(db, later, now, dedupe)) == [1]


def test_add_jobs_sends_one_notification(db: Database) -> None:
    due = SPEC.format("'t'", "'{}'", "null")
    many = f"select graphile_worker.add_jobs(array_fill({due}, array[5000]))"
    future = "row('t', null, null, now() + '1 h', null, null, null, null)::graphile_worker.job_spec"
    none = f"select graphile_worker.add_jobs(array[{future}])"
    assert counts(wakes(db, many, none)) == [5000]


def test_two_jobs_of_one_transaction_send_two_notifications(db: Database) -> None:
    both = "select graphile_worker.add_job('t'), graphile_worker.add_job('t')"
    assert counts(wakes(db, both)) == [1, 1]


def test_the_setting_silences_the_notifications(db: Database) -> None:
    db.rows("set graphile_worker.notify = off")
    spec = SPEC.format("'t'", "'{}'", "null")
    assert wakes(
        db, "select graphile_worker.add_job('t')", f"select graphile_worker.add_jobs(array[{spec}])"
    ) == []  # fmt: skip
    db.rows("reset graphile_worker.notify")
    assert len(wakes(db, "select graphile_worker.add_job('t')")) == 1


@pytest.mark.parametrize("setting", ["", "idle", "junk"])
def test_only_an_idle_worker_is_notified(db: Database, setting: str) -> None:
    spec = SPEC.format("'t'", "'{}'", "null")
    keyed = SPEC.format("'t'", "'{}'", "'k'")
    adding = [
        "select graphile_worker.add_job('t')",
        f"select graphile_worker.add_jobs(array[{spec}])",
        f"select graphile_worker.add_jobs_with_modes(array[{keyed}], '{{replace}}')",
    ]

    def beat(worker: str, busy: bool | None) -> None:
        db.rows("select graphile_worker.heartbeat(%s, null, null, %s)", worker, busy)

    db.rows("select set_config('graphile_worker.notify', %s, false)", setting)
    assert len(wakes(db, *adding)) == 3  # there is nobody with a heartbeat, but maybe Node's
    beat("a", False)
    assert len(wakes(db, *adding)) == 3
    beat("a", True)
    assert wakes(db, *adding) == []
    old = "begin isolation level repeatable read; {}; commit"
    assert len(wakes(db, *map(old.format, adding))) == 3
    beat("b", None)
    assert len(wakes(db, *adding)) == 3
    db.rows("select graphile_worker.end_worker('b')")
    assert wakes(db, *adding) == []
    db.rows("set graphile_worker.notify = on")
    assert len(wakes(db, *adding)) == 3
    db.rows("select set_config('graphile_worker.notify', %s, false)", setting)
    # What is not added is always told of.
    taken = "select graphile_worker.get_jobs('a'); select graphile_worker.end_worker('a')"
    assert len(wakes(db, taken)) == 1


@pytest.mark.parametrize(
    "claim",
    [
        "select from graphile_worker.get_jobs('psql')",
        "update graphile_worker._private_jobs set locked_by = 'node' where false",
    ],
)
def test_a_worker_that_reports_nothing_is_notified_for_ten_minutes(
    db: Database, claim: str
) -> None:
    add = "select graphile_worker.add_job('t')"
    db.rows("select graphile_worker.heartbeat('busy', null, null, true)")
    assert wakes(db, add) == []
    for _ in range(3):
        db.rows(claim)
    noted = "select count(*) from graphile_worker._private_unreported_claims"
    sweep = "select graphile_worker.recover_dead_workers()"
    assert db.value(noted) == 1
    db.rows(
        "update graphile_worker._private_unreported_claims set claimed_at = now() - interval '9 min'"
    )
    db.rows(sweep)
    assert len(wakes(db, add)) == 1
    db.rows(claim)
    assert db.value(noted) == 2
    db.rows(
        "update graphile_worker._private_unreported_claims set claimed_at = now() - interval '11 min'"
    )
    db.rows(sweep)
    assert wakes(db, add) == []


def test_the_functions_of_the_extension_are_no_unreported_claims(db: Database) -> None:
    db.rows("select graphile_worker.heartbeat('w')")
    db.rows("select graphile_worker.add_job('t', queue_name := 'q')")
    db.rows("select graphile_worker.get_jobs('w')")
    db.rows("select graphile_worker.fail_jobs('w', '[{\"id\": 1}]')")
    db.rows("select graphile_worker.add_job('t')")
    with db.connect(autocommit=False) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        assert len(old.execute("select graphile_worker.get_jobs('w')").fetchall()) == 1
    db.rows("select graphile_worker.end_worker('w'), graphile_worker.force_unlock_workers('{w}')")
    db.rows("select graphile_worker.release_stale_locks()")
    assert db.value("select count(*) from graphile_worker._private_unreported_claims") == 0


def test_a_rolled_back_job_is_not_there_and_wakes_nobody(db: Database) -> None:
    connection = db.connect(autocommit=False)
    connection.execute("select graphile_worker.add_job('t')")
    connection.rollback()
    assert db.value("select count(*) from graphile_worker._private_jobs") == 0
