"""History, results, dead letters and schemas of payloads from Python, on both faces."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from graphile_worker import errors
from graphile_worker.client.records.model import History
from support.pg import Database

from client.faces import Face, Utils

pytestmark = pytest.mark.majors(13, 18)

FINISH = (
    "select * from graphile_worker.finish_jobs_with_results('w', array[%s::bigint],"
    " array[%s::text::json], array[0.5])"
)
FAIL = "select graphile_worker.fail_jobs('w', json_build_array(json_build_object('id', %s::bigint, 'error', 'no')))"


def finished(utils: Utils, db: Database, result: str | None = '{"a": 1}', **options: Any) -> int:
    job = utils.add_job("t", {"n": 1}, **options)
    db.rows("select from graphile_worker.get_jobs('w')")
    db.rows(FINISH, job.id, result)
    return int(job.id)


def test_a_job_is_found_wherever_it_is(utils: Utils, db: Database) -> None:
    utils.keep_history(payloads=True)
    job = utils.add_job("t", {"n": 1}, queue_name="q", job_key="k", flags=["f"], max_attempts=2)
    record = utils.find_job(job.id)
    assert (record.state, record.payload, record.flags) == ("ready", {"n": 1}, frozenset({"f"}))
    assert (record.started_at, record.result, record.attempt_log) == (None, None, [])
    db.rows("select from graphile_worker.get_jobs('w')")
    assert (utils.find_job(job.id).state, utils.find_job(job.id).worker_id) == ("running", "w")
    db.rows(FAIL, job.id)
    utils.reschedule_jobs([job.id], run_at=timedelta(0))
    db.rows("select from graphile_worker.get_jobs('w')")
    db.rows(FINISH, job.id, '{"a": [1, 2]}')
    record = utils.find_job(job.id)
    assert (record.state, record.result, record.payload) == ("completed", {"a": [1, 2]}, {"n": 1})
    assert record.duration == timedelta(seconds=0.5)
    assert record.finished_at.tzinfo is not None
    assert [(a.attempt, a.outcome, a.error) for a in record.attempt_log] == [
        (1, "failed", "no"), (2, "completed", None),
    ]  # fmt: skip
    assert record.attempt_log[0].ended_at < record.attempt_log[1].ended_at
    assert utils.find_job(10**9) is None


def test_history_is_read_page_by_page(utils: Utils, db: Database) -> None:
    utils.keep_history()
    jobs = [finished(utils, db) for _ in range(5)]
    failed = utils.add_job("u", max_attempts=1)
    utils.permanently_fail_jobs([failed.id], "no")
    pages, before = [], None
    while page := utils.job_history(limit=2, before=before):
        pages.append([record.id for record in page])
        before = page[-1]
    assert pages == [[failed.id, jobs[4]], [jobs[3], jobs[2]], [jobs[1], jobs[0]]]
    assert [record.id for record in utils.job_history(tasks=["u"])] == [failed.id]
    assert [record.error for record in utils.job_history(states=["failed"])] == ["no"]
    assert utils.job_history(tasks=["t"], states=["failed"]) == []


def test_what_is_kept_is_set_and_listed(utils: Utils) -> None:
    utils.keep_history()
    utils.keep_history("t", keep=timedelta(days=7), results=False, payloads=True, max_bytes=10)
    assert utils.stop_history("noisy") is True
    assert utils.histories() == [
        History("*", timedelta(days=30), True, False, 65536, True),
        History("noisy", timedelta(days=30), False, False, 65536, False),
        History("t", timedelta(days=7), False, True, 10, True),
    ]
    assert utils.keep_failed_jobs(timedelta(days=90)) is None
    assert utils.keep_failed_jobs(None) == timedelta(days=90)
    assert utils.on_dead_letter("notify_ops") is None
    assert utils.on_dead_letter(None) == "notify_ops"


def test_failed_jobs_are_discarded(utils: Utils) -> None:
    job = utils.add_job("t")
    utils.permanently_fail_jobs([job.id])
    assert [each.id for each in utils.discard_jobs([job.id, 99], "old")] == [job.id]


def test_a_result_is_waited_for(face: Face, utils: Utils, db: Database) -> None:
    utils.keep_history()
    job = finished(utils, db)
    assert face.run(utils.handle(job).result(timeout=30)) == {"a": 1}
    assert face.run(utils.handle(job).record()).state == "completed"
    waiting = utils.add_job("t")
    with pytest.raises(errors.ResultTimeout, match=f"job {waiting.id} has not ended within 0.1"):
        face.run(utils.handle(waiting).result(timeout=0.1))
    assert repr(utils.handle(waiting)) == f"<handle of job {waiting.id}>"


def test_payloads_are_refused(utils: Utils) -> None:
    schema = {"type": "object", "required": ["to"], "properties": {"to": {"type": "string"}}}
    job = utils.add_job("mail", {"to": 1})
    assert utils.set_payload_schema("mail", schema) is None
    with pytest.raises(errors.InvalidPayload, match="/to is of type number, not string") as raised:
        utils.add_job("mail", {"to": 1})
    assert raised.value.sqlstate == "GWBPS"
    with pytest.raises(errors.InvalidPayload, match='lacks the property "to"'):
        utils.add_jobs([("mail", {"to": "a"}), ("mail", {})])
    (found,) = utils.payload_schemas()
    assert (found.task, found.schema, found.on_invalid) == ("mail", schema, "reject")
    assert utils.find_unfit_jobs("mail") == [(job.id, "/to is of type number, not string")]
    assert utils.find_unfit_jobs("mail", True) == []
    assert utils.set_payload_schema("mail", None) == schema
    utils.add_job("mail", {"to": 1})


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda u: u.keep_history(keep=30), errors.InvalidHistory),
        (lambda u: u.keep_history(keep=timedelta(seconds=1)), errors.InvalidHistory),
        (lambda u: u.keep_history(results=None), errors.InvalidHistory),
        (lambda u: u.keep_history(max_bytes=1.5), errors.InvalidHistory),
        (lambda u: u.keep_history("a\0"), errors.InvalidHistory),
        (lambda u: u.stop_history(3), errors.InvalidHistory),
        (lambda u: u.keep_failed_jobs(3), errors.InvalidHistory),
        (lambda u: u.on_dead_letter(""), errors.InvalidIdentifier),
        (lambda u: u.job_history(limit=0), errors.InvalidFilter),
        (lambda u: u.job_history(states=["ready"]), errors.InvalidFilter),
        (lambda u: u.discard_jobs(["a"]), errors.InvalidFilter),
        (lambda u: u.find_job("a"), errors.InvalidFilter),
        (lambda u: u.set_payload_schema("t", "text"), errors.InvalidSchema),
        (lambda u: u.set_payload_schema("t", {"x": 1}), errors.InvalidSchema),
        (lambda u: u.set_payload_schema("t", {"const": float("nan")}), errors.InvalidSchema),
        (lambda u: u.set_payload_schema(3, {}), errors.InvalidIdentifier),
    ],
)
def test_what_cannot_be_is_refused(
    utils: Utils, call: Callable[[Any], Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        call(utils)


def test_results_are_waited_for_with_whatever_the_jobs_are_added_with(
    face: Face, db: Database
) -> None:
    """A pool, an engine and a connection have a connection string, too."""
    import psycopg_pool
    import sqlalchemy
    from sqlalchemy.ext.asyncio import create_async_engine

    db.rows("select graphile_worker.keep_history()")
    job = int(db.value("select id from graphile_worker.add_job('t')"))
    db.rows("select graphile_worker.complete_jobs(array[%s::bigint])", job)
    at = psycopg.conninfo.conninfo_to_dict(db.dsn)
    url = f"postgresql+psycopg://{at['user']}@{at['host']}:{at['port']}/{at['dbname']}"
    conn = face.connect(db.dsn, autocommit=True)
    with face.utils(conn) as utils:
        assert face.run(utils.handle(job).result(30)) is None
    face.run(conn.close())
    if face.name == "sync":
        engine = sqlalchemy.create_engine(url)
        with psycopg_pool.ConnectionPool(db.dsn, min_size=0, max_size=1, open=True) as pool:
            for source in (pool, engine):
                with face.utils(source) as utils:
                    assert face.run(utils.handle(job).result(30)) is None
        engine.dispose()
    else:
        async_engine = create_async_engine(url)
        with face.utils(async_engine) as utils:
            assert face.run(utils.handle(job).result(30)) is None
        face.run(async_engine.dispose())
