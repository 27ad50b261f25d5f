"""Cleanup deletes old failed jobs and unused names, and no others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from graphile_worker import errors
from support.pg import Database

from client.faces import Face, Utils
from client.rows import HOUR, ids, lock

pytestmark = pytest.mark.majors(13, 18)


def test_cleanup_deletes_failed_jobs_of_the_age_asked_for(utils: Utils, db: Database) -> None:
    old, new, waiting = utils.add_jobs([("t", {})] * 3)
    utils.permanently_fail_jobs([old.id, new.id])
    db.rows(
        "update graphile_worker._private_jobs set updated_at = now() - interval '2 days' where id = %s",
        old.id,
    )
    assert utils.cleanup("failed_jobs", failed_before=timedelta(days=1)).failed_jobs == 1
    assert ids(utils.list_jobs()) == [new.id, waiting.id]
    assert utils.cleanup("failed_jobs", failed_before=datetime.now(UTC) - HOUR).failed_jobs == 0
    assert utils.cleanup("failed_jobs").failed_jobs == 1
    lock(db, waiting)
    db.rows("update graphile_worker._private_jobs set attempts = max_attempts")
    assert utils.cleanup("failed_jobs").failed_jobs == 0, "it is on its last attempt"


def test_cleanup_collects_only_names_that_nobody_needs(utils: Utils, db: Database) -> None:
    used = utils.add_job("used", queue_name="used")
    gone = utils.add_job("gone", queue_name="gone")
    utils.add_job("kept", job_key="k")
    utils.remove_job("k")
    utils.complete_jobs([gone.id])
    done = utils.cleanup()
    assert (done.queues, done.tasks) == (1, 0), "tasks only where asked for"
    assert utils.cleanup("tasks", keep_tasks=["kept"]).tasks == 1
    assert db.column("select identifier from graphile_worker._private_tasks order by 1") == [
        "kept",
        "used",
    ]
    assert db.column("select queue_name from graphile_worker._private_job_queues") == ["used"]
    assert utils.get_job(used.id) == used
    assert utils.add_job("gone", queue_name="gone").queue_name == "gone"


@pytest.mark.majors(13, 18)
def test_cleanup_gives_up_where_a_transaction_leaves_no_gap(utils: Utils, db: Database) -> None:
    gone = utils.add_job("t", queue_name="q")
    utils.complete_jobs([gone.id])
    busy = db.connect(autocommit=False)
    busy.execute("select graphile_worker.add_job('other')")
    added = threading.Thread(
        target=lambda: db.connect().execute(
            "select graphile_worker.add_job('t', queue_name := 'p')"
        )
    )
    added.start()
    with pytest.raises(errors.Busy, match="pg_stat_activity"):
        utils.cleanup("queues")
    added.join()
    busy.commit()
    assert utils.cleanup("queues").queues == 1
    assert utils.counts().ready == 2


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_transaction_with_an_older_view_adds_no_job_for_a_name_that_is_gone(
    face: Face, db: Database, level: str
) -> None:
    conn = face.connect(db.dsn)
    face.run(conn.execute(f"set transaction isolation level {level}"))
    with face.utils(db.dsn) as utils:
        gone = utils.add_job("t", queue_name="q")
        face.run(conn.execute("select count(*) from pg_class"))  # from here on, it sees what is now
        utils.complete_jobs([gone.id])
        assert utils.cleanup("queues", "tasks").queues == 1
        adds: list[Callable[[], Any]] = [
            lambda: face.add_job("t", conn=conn),
            lambda: face.add_jobs([("t", {})], conn=conn),
        ]
        for add in adds:
            with pytest.raises(psycopg.errors.SerializationFailure, match="were deleted"):
                add()
            face.run(conn.rollback())
            face.run(conn.execute(f"set transaction isolation level {level}"))
            add()  # repeated, as the error says
            face.run(conn.rollback())
            face.run(conn.execute(f"set transaction isolation level {level}"))
            face.run(conn.execute("select count(*) from pg_class"))
            utils.complete_jobs([utils.add_job("x", queue_name="q").id])
            utils.cleanup("queues")
        face.run(conn.rollback())
        face.run(conn.execute(f"set transaction isolation level {level}"))
        utils.complete_jobs([utils.add_job("x", queue_name="q").id])
        with pytest.raises(errors.InvalidConnection, match="read committed"):
            utils.cleanup("queues", conn=conn)
    face.run(conn.close())
