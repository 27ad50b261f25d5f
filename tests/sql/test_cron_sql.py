"""Recurring jobs: each time comes once, whoever asks, and in agreement with Node's schedulers."""

from __future__ import annotations

import json
import threading
import uuid
from typing import Any

import psycopg
import pytest
from support.pg import Database, wait_for

G = "graphile_worker"
FIRE = f"select * from {G}.add_cron_jobs(%s, %s)"
NINE, TEN = "2026-01-01 09:00+00", "2026-01-01 10:00+00"


def item(identifier: str = "daily", task: str | None = "report", **rest: Any) -> dict[str, Any]:
    return {"identifier": identifier, "task": task, **rest}


def fire(
    db: Database | psycopg.Connection[Any], at: str | None, *items: Any, raw: str | None = None
) -> list[str]:
    values = (at, json.dumps(items) if raw is None else raw)
    if isinstance(db, Database):
        return db.column(FIRE, *values)
    return [row[0] for row in db.execute(FIRE, values)]


def test_crontabs_become_known_once_and_are_answered_in_order(db: Database) -> None:
    assert db.rows(
        f"select identifier, known_since = now(), last_execution from {G}.register_crontabs('{{b,a}}')"
    ) == [("b", True, None), ("a", True, None)]
    since = db.value(f"select known_since from {G}.crontabs where identifier = 'a'")
    fire(db, TEN, item("a"))
    rows = db.rows(
        f"select identifier, known_since = %s, last_execution = %s from {G}.register_crontabs('{{c,a}}')",
        since,
        TEN,
    )
    assert rows == [("c", False, None), ("a", True, True)]
    assert db.column(f"select identifier from {G}.crontabs order by 1") == ["a", "b", "c"]
    assert db.rows(f"select * from {G}.register_crontabs('{{}}')") == []


@pytest.mark.parametrize("identifiers", [["a", None], ["a", ""]])
def test_a_crontab_without_a_name_is_refused(db: Database, identifiers: list[str | None]) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.rows(f"select {G}.register_crontabs(%s)", identifiers)
    assert caught.value.sqlstate == "GWBCR"
    assert db.rows(f"select from {G}.crontabs") == []


def test_a_recurring_job_is_added_with_all_that_its_item_says(db: Database) -> None:
    full = item(
        payload={"b": 1, "a": {"_cron": 1}},
        queue_name="q",
        max_attempts=3,
        priority=-2,
        flags=["f", "g"],
        job_key="k",
        job_key_mode="preserve_run_at",
    )
    assert fire(db, NINE, full, item("plain", "other")) == ["daily", "plain"]
    assert db.rows(
        "select task_identifier, queue_name, max_attempts, priority, flags, key, run_at = %s, attempts"
        f" from {G}.jobs order by id",
        NINE,
    ) == [
        ("report", "q", 3, -2, {"f": True, "g": True}, "k", True, 0),
        ("other", None, 25, 0, None, None, True, 0),
    ]
    assert db.column(f"select payload::text from {G}._private_jobs order by id") == [
        '{"b": 1, "a": {"_cron": 1}}', "{}",
    ]  # fmt: skip
    assert fire(db, TEN, {**full, "payload": None}) == ["daily"]
    assert db.rows(f"select run_at = %s, payload::text from {G}._private_jobs where key = 'k'", NINE) == [
        (True, "{}")
    ]  # fmt: skip
    assert fire(db, "2026-01-01 11:00+00", item(job_key="k")) == ["daily"]
    assert db.value(f"select run_at = '2026-01-01 11:00+00' from {G}.jobs where key = 'k'"), (
        "replace"
    )


def test_a_time_comes_once_and_never_after_a_later_one(db: Database) -> None:
    assert fire(db, NINE, item()) == ["daily"]
    assert fire(db, NINE, item(), item("new")) == ["new"]
    assert fire(db, TEN, item()) == ["daily"]
    assert fire(db, NINE, item()) == []
    assert db.value(f"select count(*) from {G}.jobs") == 3
    assert db.rows(
        f"select identifier, known_since = %s, last_execution = %s from {G}.crontabs order by 1",
        NINE,
        TEN,
    ) == [("daily", True, True), ("new", True, False)]
    assert fire(db, TEN, item("twice"), item("twice")) == ["twice"]
    assert db.value(f"select count(*) from {G}.jobs") == 4
    assert fire(db, TEN) == []


def test_what_is_known_without_an_execution_comes_whenever_it_is_due(db: Database) -> None:
    db.rows(f"select {G}.register_crontabs('{{daily}}')")
    assert fire(db, NINE, item()) == ["daily"]
    assert db.value(f"select known_since > '2026-01-01 09:00+00' from {G}.crontabs")


BAD = [
    ({"task": None}, "GWBID"),
    ({"task": "x" * 129}, "GWBID"),
    ({"queue_name": "x" * 129}, "GWBQN"),
    ({"job_key": ""}, "GWBJK"),
    ({"job_key": "k", "job_key_mode": "often"}, "GWBKM"),
    ({"max_attempts": 0}, "GWBMA"),
    ({"priority": 40000}, "GWBPR"),
    ({"flags": [None]}, "GWBFL"),
    ({"identifier": None}, "GWBCR"),
    ({"identifier": ""}, "GWBCR"),
]


@pytest.mark.parametrize(("change", "code"), BAD, ids=[f"{c} {s}" for c, s in BAD])
def test_an_unusable_item_is_refused_and_nothing_is_added(
    db: Database, change: dict[str, Any], code: str
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        fire(db, NINE, item("good"), {**item(), **change})
    assert caught.value.sqlstate == code
    assert db.rows(f"select from {G}.jobs") == db.rows(f"select from {G}.crontabs") == []
    assert fire(db, NINE, item("good")) == ["good"], "its time has not been used up"


@pytest.mark.parametrize("raw", ["{}", "3", "[3]", '["x"]', "[[]]", "[null]", "null"])
def test_items_of_the_wrong_shape_are_refused(db: Database, raw: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        fire(db, NINE, raw=raw)
    assert caught.value.sqlstate == "GWBCR"
    for at in (None, "infinity"):
        with pytest.raises(psycopg.Error) as caught:
            fire(db, at, item())
        assert caught.value.sqlstate == "GWBCR"
    with pytest.raises(psycopg.Error) as caught:
        db.rows(f"select {G}.add_cron_jobs(now(), null)")
    assert caught.value.sqlstate == "GWBCR"


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_two_schedulers_at_once_add_a_time_once(db: Database, ends: str, known: bool) -> None:
    if known:
        db.rows(f"select {G}.register_crontabs('{{daily}}')")
    first, second = db.connect(autocommit=False), db.connect()
    assert fire(first, NINE, item()) == ["daily"]
    answer: list[list[str]] = []
    thread = threading.Thread(target=lambda: answer.append(fire(second, NINE, item())))
    thread.start()
    wait_for(
        lambda: db.rows(
            "select from pg_stat_activity where wait_event_type = 'Lock' and pid = %s",
            second.info.backend_pid,
        )
    )
    getattr(first, ends)()
    thread.join()
    assert answer == [[] if ends == "commit" else ["daily"]]
    assert db.value(f"select count(*) from {G}.jobs") == 1


def test_a_due_job_wakes_the_workers(db: Database) -> None:
    listener = db.connect()
    listener.execute('listen "jobs:insert"')
    fire(db, NINE, item())
    assert len(list(listener.notifies(timeout=10, stop_after=1))) == 1


def test_a_role_with_the_level_work_can_keep_the_time(db: Database) -> None:
    role = f"role_{uuid.uuid4().hex}"
    db.rows(f"create role {role} login")
    try:
        db.rows(f"select {G}.grant_access(%s, 'work')", role)
        worker = db.connect(role=role)
        assert (
            len(worker.execute(f"select * from {G}.register_crontabs('{{daily}}')").fetchall()) == 1
        )
        assert fire(worker, NINE, item()) == ["daily"]
    finally:
        db.rows(f"drop owned by {role}")
        db.rows(f"drop role {role}")
