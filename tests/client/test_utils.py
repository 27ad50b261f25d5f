"""Looking after jobs, with no more than the level of access that each verb takes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from graphile_worker import Counts, JobSpec, errors
from support.pg import Database, wait_for

from client.faces import Face, Utils
from client.rows import HOUR, ids, lock

pytestmark = pytest.mark.majors(13, 18)


def test_a_job_is_found_by_id_and_by_key(utils: Utils) -> None:
    added = utils.add_job("t", [1, 2], job_key="k", queue_name="q", flags=["f"])
    assert utils.get_job(added.id) == added
    assert utils.get_job("k") == added
    assert utils.get_job(10**12) is None
    assert utils.get_job("") is None


def test_jobs_are_listed_by_every_filter_and_in_pages(utils: Utils, db: Database) -> None:
    ready = utils.add_job("a", queue_name="q")
    later = utils.add_job("a", run_at=HOUR)
    running = utils.add_job("b", job_key="k")
    failed = utils.add_job("b", queue_name="q", max_attempts=1)
    lock(db, running, failed)
    db.rows(
        "select graphile_worker.fail_jobs('w', %s::json)", f'[{{"id": {failed.id}, "error": "no"}}]'
    )
    every = [ready.id, later.id, running.id, failed.id]
    assert ids(utils.list_jobs()) == every
    for filters, wanted in (
        ({"states": ["ready"]}, [ready]),
        ({"states": ["scheduled"]}, [later]),
        ({"states": ["running"]}, [running]),
        ({"states": ["failed", "ready"]}, [ready, failed]),
        ({"states": []}, []),
        ({"tasks": ["b"]}, [running, failed]),
        ({"queues": ["q"]}, [ready, failed]),
        ({"queues": ["q"], "tasks": ["b"]}, [failed]),
        ({"keys": ["k", "other"]}, [running]),
        ({"ids": [later.id, 99]}, [later]),
        ({"tasks": ["unknown"]}, []),
    ):
        assert ids(utils.list_jobs(**filters)) == ids(wanted), filters
    assert ids(utils.list_jobs(limit=3)) == every[:3]
    assert ids(utils.list_jobs(limit=3, after=every[2])) == every[3:]
    assert utils.counts() == Counts(ready=1, scheduled=1, running=1, failed=1)
    assert utils.counts().total == 4
    seen = utils.get_job(failed.id)
    assert (seen.last_error, seen.is_available, seen.attempts) == ("no", False, 1)
    assert utils.get_job(running.id).locked_by == "w"


def test_jobs_are_removed_completed_failed_and_rescheduled(utils: Utils, db: Database) -> None:
    one, two, three = utils.add_jobs([JobSpec("t", {"n": n}, job_key=f"k{n}") for n in range(3)])
    lock(db, two)
    assert utils.remove_job("k0") == one
    assert utils.remove_job("k0") is None
    removed = utils.remove_job("k1")
    assert (removed.id, removed.key, removed.is_available) == (two.id, None, False)

    failed = utils.permanently_fail_jobs([two.id, three.id], "enough")
    assert [(job.id, job.last_error, job.task_identifier) for job in failed] == [
        (three.id, "enough", "t")
    ]
    assert utils.permanently_fail_jobs([three.id])[0].last_error == "Manually marked as failed"

    when = datetime(2060, 1, 1, tzinfo=UTC)
    (again,) = utils.reschedule_jobs(
        [two.id, three.id], run_at=when, priority=-3, attempts=0, max_attempts=2
    )
    assert (again.run_at, again.priority, again.attempts, again.max_attempts) == (when, -3, 0, 2)
    (again,) = utils.reschedule_jobs([three.id], run_at=HOUR)
    assert (again.run_at - again.updated_at, again.priority) == (HOUR, -3)

    assert ids(utils.complete_jobs([two.id, three.id])) == [three.id]
    utils.force_unlock_workers(["other"])
    assert utils.complete_jobs([two.id]) == []
    utils.force_unlock_workers(["w"])
    assert ids(utils.complete_jobs([two.id])) == [two.id]
    assert utils.counts().total == 0


def test_what_is_no_filter_or_id_is_refused(utils: Utils) -> None:
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: utils.list_jobs(states=["done"]), "ready, scheduled, running or failed"),
        (lambda: utils.list_jobs(limit=0), "from 1 to 10000"),
        (lambda: utils.list_jobs(limit=10001), "from 1 to 10000"),
        (lambda: utils.list_jobs(tasks="t"), "list of texts"),
        (lambda: utils.list_jobs(keys=["a\0"]), "NUL"),
        (lambda: utils.complete_jobs(7), "list of job ids"),
        (lambda: utils.complete_jobs(["7"]), "64-bit integer"),
        (lambda: utils.complete_jobs([2**63]), "64-bit integer"),
        (lambda: utils.cleanup("everything"), "failed_jobs, queues or tasks"),
        (lambda: utils.force_unlock_workers("w"), "list of texts"),
    ]
    for call, message in calls:
        with pytest.raises(errors.InvalidFilter, match=message):
            call()
    with pytest.raises(errors.InvalidMaxAttempts, match="0 to 32767"):
        utils.reschedule_jobs([1], attempts=-1)
    with pytest.raises(errors.InvalidRunAt):
        utils.reschedule_jobs([1], run_at="now")
    with pytest.raises(errors.InvalidJobKey, match="is None"):
        utils.remove_job(None)


def test_a_right_that_is_missing_is_named_with_its_grant(
    face: Face, db: Database, role: str
) -> None:
    dsn = db.dsn.replace("user=postgres", f"user={role}")
    job = face.add_job("t", conn=(owner := face.connect(db.dsn, autocommit=True)))
    levels: dict[str, tuple[str, list[Any]]] = {
        "add_job": ("enqueue", ["t"]), "add_jobs": ("enqueue", [[("t", None)]]),
        "remove_job": ("admin", ["k"]), "complete_jobs": ("admin", [[job.id]]),
        "permanently_fail_jobs": ("admin", [[job.id]]), "reschedule_jobs": ("admin", [[job.id]]),
        "force_unlock_workers": ("admin", [["w"]]), "cleanup": ("admin", []),
        "get_job": ("admin", [job.id]), "list_jobs": ("admin", []), "counts": ("observe", []),
    }  # fmt: skip
    allowed: dict[str, set[str]] = {
        "none": set(), "enqueue": {"enqueue"}, "work": {"enqueue"}, "observe": {"observe"},
        "admin": {"enqueue", "admin", "observe"},
    }  # fmt: skip
    for level, verbs in allowed.items():
        if level != "none":
            db.rows("select graphile_worker.grant_access(%s, %s)", role, level)
        with face.utils(dsn) as utils:
            for verb, (needed, arguments) in levels.items():
                if needed in verbs:
                    getattr(utils, verb)(*arguments)
                    continue
                with pytest.raises(
                    errors.AccessDenied, match=f"gw-install grant ROLE {needed}"
                ) as caught:
                    getattr(utils, verb)(*arguments)
                assert caught.value.sqlstate == "42501"
    face.run(owner.close())


def test_a_schema_that_is_missing_older_newer_or_nodes_is_named_with_its_remedy(
    face: Face, empty_db: Database
) -> None:
    def told(error: type[Exception], remedy: str) -> None:
        with face.utils(empty_db.dsn) as utils, pytest.raises(error, match=remedy):
            utils.counts()

    conn = face.connect(empty_db.dsn, autocommit=True)
    told(errors.SchemaMissing, "does not exist: run `gw-install install`")
    with pytest.raises(errors.SchemaMissing, match="gw-install install"):
        face.add_job("t", conn=conn)
    empty_db.rows("create schema graphile_worker")
    told(errors.SchemaMissing, "has no graphile_worker: run `gw-install install`")
    with pytest.raises(errors.SchemaError, match="`gw-install install`"):
        face.add_jobs([("t", None)], conn=conn)
    empty_db.rows("create table graphile_worker._private_jobs ()")
    told(errors.SchemaTooOld, "Node's graphile-worker: run `gw-install adopt`")
    empty_db.rows("drop table graphile_worker._private_jobs")
    version = "create or replace function graphile_worker.version() returns text language sql as "
    empty_db.rows(f"{version} $$ select '0.9.0'::text $$".encode())
    told(errors.SchemaTooOld, r"0\.9\.0, and .* run `gw-install upgrade`")
    with pytest.raises(errors.SchemaTooOld):
        face.add_job("t", conn=conn)
    empty_db.rows(f"{version} $$ select '2.0.0'::text $$".encode())
    told(errors.SchemaTooNew, "pip install -U graphile-worker")
    with pytest.raises(errors.SchemaMissing, match="--schema elsewhere"):
        face.add_job("t", conn=conn, schema="elsewhere")
    face.run(conn.close())


def test_an_error_in_the_callers_transaction_is_general_since_nothing_can_be_asked(
    face: Face, empty_db: Database
) -> None:
    conn = face.connect(empty_db.dsn)
    with pytest.raises(errors.SchemaError, match="gw-install status"):
        face.add_job("t", conn=conn)
    face.run(conn.close())


def test_a_server_that_is_away_is_told_at_once(face: Face) -> None:
    nowhere = "host=127.0.0.1 port=1 connect_timeout=5"
    with face.utils(nowhere) as utils, pytest.raises(psycopg.OperationalError, match="refused"):
        utils.counts()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        face.run(face.module.add_job_adhoc(nowhere, "t"))


def test_utils_outlive_their_connections(face: Face, db: Database) -> None:
    with face.utils(db.dsn) as utils:
        utils.add_job("t")
        killed = db.column(
            "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
            " and datname = current_database()"
        )
        assert killed
        wait_for(lambda: _adds(utils))
        assert utils.counts().ready == 2


def _adds(utils: Utils) -> bool:
    try:
        utils.add_job("t")
    except psycopg.OperationalError:
        return False
    return True


def test_utils_without_prepared_statements_prepare_none(face: Face, db: Database) -> None:
    for prepare, wanted in ((True, 1), (False, 0)):
        with face.utils(db.dsn, prepare=prepare, max_connections=1) as utils:
            for _ in range(8):
                utils.add_job("t")
            pool = utils.utils._pool

            async def prepared(pool: Any = pool) -> int:
                async with pool.connection() as conn:
                    cursor = await conn.execute("select count(*) from pg_prepared_statements")
                    return int((await cursor.fetchone())[0])

            if face.name == "async":
                count = face.run(prepared())
            else:
                with pool.connection() as conn:
                    count = conn.execute("select count(*) from pg_prepared_statements").fetchone()[
                        0
                    ]
            assert min(count, 1) == wanted
