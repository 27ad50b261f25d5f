"""Every option reaches the database, and every job comes back whole and typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, TypedDict
from uuid import UUID

import pytest
from graphile_worker import GraphileWorkerError, Job, JobSpec, TaskSpec, errors
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from psycopg.rows import dict_row
from pydantic import BaseModel
from support.pg import Database, wait_for

from client.faces import Face, stored

pytestmark = pytest.mark.majors(13, 18)

SOON = datetime(2099, 1, 1, 12, 30, tzinfo=UTC)


def test_a_job_has_its_defaults_and_its_names(face: Face, conn: Any) -> None:
    job = face.add_job("send_email", conn=conn)
    assert isinstance(job, Job)
    assert (job.task_identifier, job.queue_name, job.payload, job.key) == (
        "send_email",
        None,
        {},
        None,
    )
    assert (job.priority, job.attempts, job.max_attempts, job.revision) == (0, 0, 25, 0)
    assert (job.flags, job.is_available, job.locked_at, job.last_error) == (
        frozenset(),
        True,
        None,
        None,
    )
    assert job.run_at == job.created_at == job.updated_at
    assert job.run_at.utcoffset() is not None
    with pytest.raises(AttributeError):
        job.priority = 3  # type: ignore[misc]


OPTIONS: dict[str, Any] = {
    "queue_name": "q", "run_at": SOON, "priority": -5, "max_attempts": 7, "job_key": "k",
    "job_key_mode": "preserve_run_at", "flags": ["x", "y"],
}  # fmt: skip


def test_every_option_reaches_its_column_by_each_way(face: Face, conn: Any, db: Database) -> None:
    spec = TaskSpec(**OPTIONS)
    with pytest.raises(AttributeError):
        spec.priority = 1  # type: ignore[misc]
    assert spec == TaskSpec(**{**OPTIONS, "flags": ("x", "y")})
    jobs = [
        face.add_job("t", {"n": 1}, conn=conn, **OPTIONS),
        face.add_job("t", {"n": 1}, replace(spec, job_key="k2"), conn=conn),
        face.add_job(
            "t", {"n": 1}, replace(spec, priority=9), conn=conn, priority=-5, job_key="k3"
        ),
        face.add_jobs([JobSpec("t", {"n": 1}, **{**OPTIONS, "job_key": "k4"})], conn=conn)[0],
        face.add_jobs([("t", {"n": 1})], replace(spec, job_key="k5"), conn=conn)[0],
    ]
    for job in jobs:
        assert (job.queue_name, job.run_at, job.priority, job.max_attempts) == ("q", SOON, -5, 7)
        assert (job.payload, job.flags) == ({"n": 1}, frozenset("xy"))
    assert [job.key for job in jobs] == ["k", "k2", "k3", "k4", "k5"]
    with face.utils(conn) as utils:
        assert utils.list_jobs() == jobs


def test_run_at_may_be_from_the_databases_now(face: Face, conn: Any, db: Database) -> None:
    alone = face.add_job("t", conn=conn, run_at=timedelta(days=1, microseconds=7))
    bulk = face.add_jobs([JobSpec("t", run_at=timedelta(minutes=-90, microseconds=1))], conn=conn)[
        0
    ]
    assert alone.run_at - alone.created_at == timedelta(days=1, microseconds=7)
    assert bulk.created_at - bulk.run_at == timedelta(minutes=90, microseconds=-1)
    # Half a year crosses a change of the clocks, and is as long all the same.
    face.run(conn.execute("set time zone 'Europe/Berlin'"))
    half = timedelta(days=182)
    mixed = [JobSpec("t", run_at=half), JobSpec("t", run_at=half, priority=1)]
    jobs = [face.add_job("t", conn=conn, run_at=half), *face.add_jobs(mixed, conn=conn)]
    assert [job.run_at.astimezone(UTC) - job.created_at.astimezone(UTC) for job in jobs] == [
        half
    ] * 3
    century = face.add_jobs([JobSpec("t", run_at=200 * half), JobSpec("u")], conn=conn)[0]
    assert century.run_at.year > 2100


class Color(Enum):
    RED = "red"


@dataclass
class Address:
    city: str
    at: datetime


class Model(BaseModel):
    when: date
    price: Decimal


class Order(TypedDict):
    id: int


PAYLOADS = [
    (None, {}),
    ({}, {}),
    ([], []),
    ([{"a": 1}, {"a": 2}], [{"a": 1}, {"a": 2}]),
    ("text", "text"),
    (0, 0),
    (False, False),
    (2**70, 2**70),
    ({"é": "😀 \\u0000 \\ \" \n", "nested": [[None]]},) * 2,
    (Address("Bonn", SOON), {"city": "Bonn", "at": "2099-01-01T12:30:00+00:00"}),
    ({"deep": [Address("Bonn", SOON)]}, {"deep": [{"city": "Bonn", "at": "2099-01-01T12:30:00+00:00"}]}),
    (Order(id=7), {"id": 7}),
    (Model(when=date(2026, 1, 2), price=Decimal("1.10")), {"when": "2026-01-02", "price": "1.10"}),
    (
        {"id": UUID(int=1), "price": Decimal("0.10"), "color": Color.RED, "set": {1}, "pair": (1, 2)},
        {"id": str(UUID(int=1)), "price": "0.10", "color": "red", "set": [1], "pair": [1, 2]},
    ),
]  # fmt: skip


def test_a_payload_is_what_a_worker_reads(
    face: Face, conn: Any, db: Database, subtests: pytest.Subtests
) -> None:
    for payload, read in PAYLOADS:
        with subtests.test(payload=repr(payload)):
            assert face.add_job("t", payload, conn=conn).payload == read
            assert face.add_jobs([("t", payload)], conn=conn)[0].payload == read
            texts = db.column("delete from graphile_worker._private_jobs returning payload::text")
            assert [json.loads(text) for text in texts] == [read, read]


def test_your_own_dumps_makes_the_json(face: Face, conn: Any, db: Database) -> None:
    def dumps(payload: Any) -> bytes:
        return json.dumps({"mine": repr(payload)}).encode()

    assert face.add_job("t", object, conn=conn, dumps=dumps).payload == {"mine": repr(object)}
    with face.utils(conn, dumps=dumps) as utils:
        assert utils.add_job("t", 3j).payload == {"mine": "3j"}


def test_trace_context_is_carried_only_where_asked_for(face: Face, conn: Any) -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("request"):
        span = trace.get_current_span().get_span_context()
        plain = face.add_job("t", {"n": 1}, conn=conn)
        traced = face.add_job("t", {"n": 1}, conn=conn, trace=True)
        empty = face.add_jobs([("t", None)], conn=conn, trace=True)[0]
        with pytest.raises(errors.InvalidPayload, match="object"):
            face.add_job("t", [1], conn=conn, trace=True)
    assert plain.payload == {"n": 1}
    assert traced.payload.pop("_trace")["traceparent"].split("-")[1] == f"{span.trace_id:032x}"
    assert traced.payload == {"n": 1}
    assert list(empty.payload) == ["_trace"]
    assert face.add_job("t", {"n": 1}, conn=conn, trace=True).payload == {"n": 1}


def test_many_jobs_come_back_in_the_order_given_from_a_generator(
    face: Face, conn: Any, db: Database
) -> None:
    def specs() -> Iterator[JobSpec]:
        for n in range(250):
            key = f"k{n % 40}" if n % 3 == 0 else None
            yield JobSpec(f"t{n % 7}", {"n": n}, job_key=key, queue_name=f"q{n % 5}")

    told = db.connect()
    told.execute('listen "jobs:insert"')
    jobs = face.add_jobs(specs(), conn=conn, chunk_size=100)
    assert [job.payload["n"] for job in jobs] == list(range(250))
    assert [job.task_identifier for job in jobs] == [f"t{n % 7}" for n in range(250)]
    assert [job.queue_name for job in jobs] == [f"q{n % 5}" for n in range(250)]
    assert len(list(told.notifies(timeout=0.2))) == 3, "one wake-up for each chunk"
    assert face.add_jobs([], conn=conn) == []


def test_add_jobs_is_all_or_nothing_also_in_autocommit_mode(
    face: Face, conn: Any, db: Database
) -> None:
    def specs() -> Iterator[JobSpec]:
        yield from (JobSpec("t") for _ in range(25))
        raise RuntimeError("the source dried up")

    with pytest.raises(RuntimeError):
        face.add_jobs(specs(), conn=conn, chunk_size=10)
    with pytest.raises(errors.InvalidPayload, match=r"job 25: payload\.x"):
        face.add_jobs([("t", {})] * 25 + [("t", {"x": "\0"})], conn=conn, chunk_size=10)
    with face.utils(db.dsn) as utils, pytest.raises(errors.InvalidQueueName):
        utils.add_jobs([JobSpec("t")] * 25 + [JobSpec("t", queue_name="x" * 129)], chunk_size=10)
    assert stored(db) == 0


def test_the_callers_rows_and_cursors_do_not_matter(face: Face, db: Database) -> None:
    conn = face.connect(db.dsn, autocommit=True, row_factory=dict_row, prepare_threshold=None)
    cursor = conn.cursor()
    assert face.add_job("t", {"n": 1}, conn=cursor).payload == {"n": 1}
    assert [job.payload for job in face.add_jobs([("t", {"n": 2})], conn=cursor)] == [{"n": 2}]
    face.run(conn.close())


def test_a_job_is_added_to_a_plain_schema_of_any_name(face: Face, empty_db: Database) -> None:
    from graphile_worker.install import install

    name = 'Odd "queue" 100% :x \'é'
    install(empty_db.connect(), schema=name, mode="plain")
    conn = face.connect(empty_db.dsn, autocommit=True)
    assert (
        face.add_job("t", conn=conn, schema=name, job_key="k", job_key_mode="unsafe_dedupe").id == 1
    )
    with face.utils(empty_db.dsn, schema=name) as utils:
        utils.add_jobs([("t", None), JobSpec("u", job_key="k")])
        assert utils.counts().ready == 2
        assert [job.task_identifier for job in utils.list_jobs()] == ["u", "t"]
    face.run(conn.close())


def test_what_was_added_is_logged_under_one_logger(
    face: Face, conn: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", "graphile_worker"):
        job = face.add_job("t", conn=conn)
        face.add_jobs([("t", None)] * 3, conn=conn)
    ours = [record.getMessage() for record in caplog.records if record.name == "graphile_worker"]
    assert ours == [f"added job {job.id} for task t", "added 3 jobs"]


def test_add_job_adhoc_connects_adds_and_disconnects(face: Face, db: Database) -> None:
    # Not how many: autovacuum comes and goes.
    here = (
        "select pid from pg_stat_activity"
        " where datname = current_database() and backend_type = 'client backend'"
    )
    before = set(db.column(here))
    job = face.run(face.module.add_job_adhoc(db.dsn, "t", {"n": 1}, priority=3))
    assert (job.task_identifier, job.payload, job.priority) == ("t", {"n": 1}, 3)
    assert db.column("select id from graphile_worker.jobs") == [job.id]
    wait_for(lambda: set(db.column(here)) <= before, "its session ends")


def naive() -> datetime:
    return datetime(2099, 1, 1)


def endless() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"identifier": ""}, "InvalidIdentifier", "is empty"),
    ({"identifier": None}, "InvalidIdentifier", "pass a str"),
    ({"identifier": 7}, "InvalidIdentifier", "pass a str"),
    ({"identifier": "a\0b"}, "InvalidIdentifier", "NUL"),
    ({"identifier": "x" * 129}, "InvalidIdentifier", "129 characters"),
    ({"identifier": "\ud800"}, "InvalidIdentifier", "surrogate"),
    ({"queue_name": "x" * 129}, "InvalidQueueName", "at most 128"),
    ({"queue_name": b"q"}, "InvalidQueueName", "bytes"),
    ({"job_key": ""}, "InvalidJobKey", "is empty"),
    ({"job_key": "x" * 513}, "InvalidJobKey", "at most 512"),
    ({"job_key": 5}, "InvalidJobKey", "pass a str"),
    ({"job_key": "k", "job_key_mode": "upsert"}, "InvalidJobKeyMode", "unsafe_dedupe"),
    ({"job_key_mode": "upsert"}, "InvalidJobKeyMode", '"upsert"'),
    ({"max_attempts": 0}, "InvalidMaxAttempts", "1 to 32767"),
    ({"max_attempts": 2.5}, "InvalidMaxAttempts", "pass an int"),
    ({"priority": 32768}, "InvalidPriority", "-32768 to 32767"),
    ({"priority": True}, "InvalidPriority", "pass an int"),
    ({"flags": "slow"}, "InvalidFlags", "list of texts"),
    ({"flags": ["a", None]}, "InvalidFlags", "pass a str"),
    ({"run_at": naive()}, "InvalidRunAt", "has no time zone"),
    ({"run_at": "tomorrow"}, "InvalidRunAt", "timedelta"),
    ({"payload": {"user": {"name": ["a\0"]}}}, "InvalidPayload", r"payload\.user\.name\[0\] holds a NUL"),
    ({"payload": {"a\0": 1}}, "InvalidPayload", "NUL"),
    ({"payload": {"x": float("nan")}}, "InvalidPayload", r"payload\.x .* nan"),
    ({"payload": [float("-inf")]}, "InvalidPayload", r"payload\[0\]"),
    ({"payload": {"x": Decimal("NaN")}}, "InvalidPayload", r"payload\.x"),
    ({"payload": {"x": b"raw"}}, "InvalidPayload", r"payload\.x .* bytes"),
    ({"payload": {(1, 2): 3}}, "InvalidPayload", "key"),
    ({"payload": "half \ud83d"}, "InvalidPayload", "surrogate"),
    ({"payload": endless()}, "InvalidPayload", "payload"),
    ({"payload": 1, "dumps": lambda _: "{not json"}, "InvalidPayload", "json"),
]  # fmt: skip


def test_bad_input_has_a_clear_error_and_stores_nothing(
    face: Face, conn: Any, db: Database, subtests: pytest.Subtests
) -> None:
    for arguments, kind, message in BAD:
        with subtests.test(arguments=repr(arguments)[:60]):
            error = getattr(errors, kind)
            assert issubclass(error, GraphileWorkerError)
            given = {"identifier": "t", **arguments}
            with pytest.raises(error, match=message):
                face.add_job(**given, conn=conn)
            dumps = {"dumps": given.pop("dumps")} if "dumps" in given else {}
            with pytest.raises(error, match=message):
                face.add_jobs([JobSpec("good"), JobSpec(**given)], conn=conn, **dumps)
            assert stored(db) == 0


def test_what_is_no_list_of_jobs_is_refused(face: Face, conn: Any, db: Database) -> None:
    for bad in ("t", {"t": 1}, JobSpec("t"), 7):
        with pytest.raises(errors.InvalidArgument, match="not a list of jobs"):
            face.add_jobs(bad, conn=conn)
    items: list[Any] = ["t", ["t", {}], ("t", {}, {}), None]
    for item in items:
        with pytest.raises(errors.InvalidArgument, match=r"job 1: .*not a job spec"):
            face.add_jobs([("t", {}), item], conn=conn)
    with pytest.raises(errors.InvalidArgument, match="chunk_size"):
        face.add_jobs([("t", {})], conn=conn, chunk_size=0)
    with pytest.raises(TypeError, match="queue"):
        face.add_job("t", conn=conn, queue="q")
    assert stored(db) == 0
