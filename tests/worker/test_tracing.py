"""What a trace shows of a task."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from graphile_worker import Tasks, add_job, add_jobs
from graphile_worker.errors import InvalidArgument, InvalidMaxAttempts, InvalidPayload
from graphile_worker.payload import to_json
from graphile_worker.retry import RetryAfter, Snooze
from graphile_worker.worker.context import Context
from graphile_worker.worker.tracing import tracing_middleware
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv.attributes import error_attributes
from support.live import add, once
from support.pg import Database

from worker.contexts import a_context, a_job

pytestmark = pytest.mark.majors(18)


class Spans:
    """The spans of this process, which has one provider for all of its life."""

    _exporter: InMemorySpanExporter | None = None

    def __init__(self) -> None:
        if Spans._exporter is None:
            Spans._exporter = InMemorySpanExporter()
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(Spans._exporter))
            trace.set_tracer_provider(provider)
        Spans._exporter.clear()

    def one(self, name: str) -> ReadableSpan:
        assert Spans._exporter is not None
        (found,) = (span for span in Spans._exporter.get_finished_spans() if span.name == name)
        return found


@pytest.fixture
def spans() -> Spans:
    return Spans()


def run(payload: Any, outcome: Any = None, *, queue: str | None = "emails", **options: Any) -> Any:
    """Run a task through the middleware: it returns the outcome, or raises it."""
    job = a_job(task_identifier="send_email", payload=payload, queue_name=queue, locked_by="w1")

    def connect() -> Any:
        raise AssertionError("no connection is needed")

    async def task() -> Any:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    middleware = tracing_middleware(**options)
    assert middleware is not None
    return asyncio.run(middleware(Context(job, connect), task))  # type: ignore[arg-type]


def added_in_a_trace() -> tuple[Any, trace.SpanContext]:
    with trace.get_tracer("app").start_as_current_span("order") as span:
        return json.loads(to_json({"to": "ann"}, trace=True) or ""), span.get_span_context()


def test_a_task_is_a_consumer_that_processes_a_message(spans: Spans) -> None:
    assert run({}, "sent") == "sent"
    span = spans.one("process send_email")
    assert span.kind is trace.SpanKind.CONSUMER
    assert span.status.status_code is trace.StatusCode.UNSET
    assert span.attributes == {
        "messaging.system": "graphile_worker",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "send_email",
        "messaging.message.id": "7",
        "messaging.client.id": "w1",
        "messaging.graphile_worker.attempt": 2,
        "messaging.graphile_worker.max_attempts": 25,
        "messaging.graphile_worker.queue_name": "emails",
    }


def test_the_names_are_those_of_the_semantic_conventions(spans: Spans) -> None:
    with pytest.raises(ValueError, match="no"):
        run([{}, {}], ValueError("no"))
    known = {value for value in vars(messaging_attributes).values() if isinstance(value, str)}
    known.add(error_attributes.ERROR_TYPE)
    names = set(spans.one("process send_email").attributes or ())
    ours = {name for name in names if name.startswith("messaging.graphile_worker.")}
    assert names - ours <= known
    assert "messaging.batch.message_count" in names


def test_the_span_is_a_child_of_that_in_which_the_job_was_added(spans: Spans) -> None:
    payload, order = added_in_a_trace()
    run(payload)
    span = spans.one("process send_email")
    assert span.parent is not None
    assert span.parent.span_id == order.span_id
    assert [link.context.span_id for link in span.links] == [order.span_id]


def test_a_trace_of_its_own_is_linked_to_that_of_the_adder(spans: Spans) -> None:
    payload, order = added_in_a_trace()
    run(payload, follow="link")
    span = spans.one("process send_email")
    assert span.parent is None
    assert span.context is not None
    assert span.context.trace_id != order.trace_id
    assert [link.context.span_id for link in span.links] == [order.span_id]


@pytest.mark.parametrize(
    "payload", [{"_trace": None}, {"_trace": {"traceparent": 1}}, {"_trace": {"traceparent": "x"}}, [], 7, None]
)  # fmt: skip
def test_a_payload_without_a_trace_begins_one(spans: Spans, payload: Any) -> None:
    with trace.get_tracer("worker").start_as_current_span("loop"):
        run(payload)
    span = spans.one("process send_email")
    assert span.parent is None
    assert span.links == ()


def test_an_exception_is_recorded_and_makes_the_status_an_error(spans: Spans) -> None:
    with pytest.raises(RetryAfter):
        run({}, RetryAfter(60, "the mail server is busy"))
    span = spans.one("process send_email")
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.status.description == "RetryAfter: the mail server is busy"
    assert (span.attributes or {})["error.type"] == "graphile_worker.retry.RetryAfter"
    assert [event.name for event in span.events] == ["exception"]


def test_a_snooze_is_no_error(spans: Spans) -> None:
    with pytest.raises(Snooze):
        run({}, Snooze(60))
    span = spans.one("process send_email")
    assert span.status.status_code is trace.StatusCode.UNSET
    assert [event.name for event in span.events] == ["snoozed"]


def test_a_task_that_is_cancelled_is_an_error(spans: Spans) -> None:
    with pytest.raises(asyncio.CancelledError):
        run({}, asyncio.CancelledError())
    assert spans.one("process send_email").status.status_code is trace.StatusCode.ERROR


def test_what_the_task_does_belongs_to_the_span(spans: Spans) -> None:
    async def task() -> None:
        with trace.get_tracer("app").start_as_current_span("smtp"):
            pass

    middleware = tracing_middleware()
    assert middleware is not None
    asyncio.run(middleware(a_context({}, key="k"), task))  # type: ignore[arg-type]
    inner, outer = spans.one("smtp"), spans.one("process t")
    assert inner.parent is not None
    assert outer.context is not None
    assert inner.parent.span_id == outer.context.span_id
    assert (outer.attributes or {})["messaging.graphile_worker.job_key"] == "k"


def test_an_unknown_way_to_follow_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="use 'parent' or 'link'"):
        tracing_middleware(follow="child")  # type: ignore[arg-type]


def test_without_opentelemetry_there_is_no_middleware() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from graphile_worker.worker.tracing import tracing_middleware\n"
        "print(tracing_middleware())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"


def test_adding_jobs_is_a_producers_span_that_the_run_belongs_to(
    db: Database, spans: Spans
) -> None:
    conn = db.connect()
    job = add_job("send_email", {"to": "ann"}, conn=conn, trace=True)
    sent = spans.one("send send_email")
    assert sent.kind is trace.SpanKind.PRODUCER
    assert sent.attributes == {
        "messaging.system": "graphile_worker",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "send_email",
        "messaging.message.id": str(job.id),
        "server.address": conn.info.host,
        "server.port": conn.info.port,
    }
    run(job.payload, "sent")
    processed = spans.one("process send_email")
    assert processed.parent is not None
    assert processed.parent.span_id == sent.context.span_id
    spans = Spans()
    assert len(add_jobs([("a", {}), ("b", {})], conn=conn, trace=True)) == 2
    assert (spans.one("send").attributes or {})["messaging.batch.message_count"] == 2
    spans = Spans()
    with pytest.raises(InvalidMaxAttempts):
        add_job("send_email", {}, conn=conn, trace=True, priority=None, max_attempts=0)
    with pytest.raises(InvalidPayload):
        add_job("send_email", {"bad": object()}, conn=conn, trace=True)
    failed = spans.one("send send_email")
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "graphile_worker.errors.InvalidPayload"
    assert trace.get_current_span() is trace.INVALID_SPAN, "none is left open"


def test_a_run_names_the_server_of_its_worker(db: Database, spans: Spans) -> None:
    tasks = Tasks()

    @tasks.task("send_email")
    def send_email() -> None: ...

    add(db, "send_email")
    middleware = tracing_middleware()
    assert middleware is not None
    once(db, tasks, middleware=[middleware])
    attributes = spans.one("process send_email").attributes or {}
    info = db.connect().info
    assert (attributes["server.address"], attributes["server.port"]) == (info.host, info.port)


def test_the_metrics_are_those_of_the_conventions() -> None:
    script = """
        import asyncio, json
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider([reader]))
        from graphile_worker.client.tracing import sending
        from worker.test_tracing import run
        with sending(True, "send_email", 3):
            pass
        run({}, "sent")
        try:
            run({}, ValueError("no"))
        except ValueError:
            pass
        found = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
        for metric in found:
            for point in metric.data.data_points:
                print(metric.name, metric.unit, getattr(point, "value", None) or point.count,
                      dict(point.attributes).get("error.type"))
    """
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": tests},
    )  # fmt: skip
    lines = sorted(done.stdout.splitlines())
    assert lines == [
        "messaging.client.consumed.messages {message} 2 None",
        "messaging.client.operation.duration s 1 None",
        "messaging.client.sent.messages {message} 3 None",
        "messaging.process.duration s 1 None",
        "messaging.process.duration s 1 builtins.ValueError",
    ]
    from opentelemetry.semconv._incubating.metrics import messaging_metrics

    known = {value for value in vars(messaging_metrics).values() if isinstance(value, str)}
    assert {line.split()[0] for line in lines} <= known
