"""Which jobs notify workers, and how often."""

from __future__ import annotations

from typing import Any

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


def test_only_a_worker_that_sleeps_is_woken_where_that_is_set(db: Database) -> None:
    spec = SPEC.format("'t'", "'{}'", "null")
    keyed = SPEC.format("'t'", "'{}'", "'k'")
    adding = [
        "select graphile_worker.add_job('t')",
        f"select graphile_worker.add_jobs(array[{spec}])",
        f"select graphile_worker.add_jobs_with_modes(array[{keyed}], '{{replace}}')",
    ]

    def beat(worker: str, busy: bool | None) -> None:
        db.rows("select graphile_worker.heartbeat(%s, null, null, %s)", worker, busy)

    db.rows("set graphile_worker.notify = idle")
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
    # What is not added is always told of.
    taken = "select graphile_worker.get_jobs('a'); select graphile_worker.end_worker('a')"
    assert len(wakes(db, taken)) == 1


def test_a_rolled_back_job_is_not_there_and_wakes_nobody(db: Database) -> None:
    connection = db.connect(autocommit=False)
    connection.execute("select graphile_worker.add_job('t')")
    connection.rollback()
    assert db.value("select count(*) from graphile_worker._private_jobs") == 0
