"""A span of OpenTelemetry around each task, as part of the trace that added the job."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from graphile_worker.client.tracing import BOUNDARIES, class_path, server_attributes
from graphile_worker.errors import InvalidArgument
from graphile_worker.retry import PauseQueue, PauseTask, Snooze
from graphile_worker.worker.context import Context, Middleware


def tracing_middleware(*, follow: Literal["parent", "link"] = "parent") -> Middleware | None:
    """Return a middleware that traces and measures tasks; None where OpenTelemetry is missing.

    The span is named and has the attributes that the semantic conventions for messaging give to a
    consumer: ``process send_email``. It is a child of the span in which the job was added, where
    that was done with ``trace=True``; with ``follow="link"`` it begins a trace of its own, as suits
    jobs that run days later. Either way it links to that span. An exception is recorded, and makes
    the status an error, but for a Snooze or a pause.
    """
    if follow not in ("parent", "link"):
        raise InvalidArgument(f"follow is {follow!r}: use 'parent' or 'link'")
    try:
        from opentelemetry import context as contexts
        from opentelemetry import metrics, trace
        from opentelemetry.propagate import extract
    except ImportError:
        return None

    from graphile_worker import __version__

    tracer = trace.get_tracer("graphile_worker", __version__)
    meter = metrics.get_meter("graphile_worker", __version__)
    consumed = meter.create_counter(
        "messaging.client.consumed.messages", "{message}", "Jobs that were given to a task."
    )
    duration = meter.create_histogram(
        "messaging.process.duration", "s", "How long tasks ran.",
        explicit_bucket_boundaries_advisory=BOUNDARIES,
    )  # fmt: skip

    async def traced(context: Context, call_next: Callable[[], Awaitable[Any]]) -> Any:
        added = extract(_carrier(context.job.payload), contexts.Context())
        by = trace.get_current_span(added).get_span_context()
        started = time.perf_counter()
        measured: dict[str, str | int] = {
            "messaging.system": "graphile_worker",
            "messaging.operation.name": "process",
            "messaging.destination.name": context.job.task_identifier,
            **server_attributes(context.server),
        }
        consumed.add(1, measured)
        with tracer.start_as_current_span(
            f"process {context.job.task_identifier}",
            context=added if follow == "parent" else contexts.Context(),
            kind=trace.SpanKind.CONSUMER,
            attributes=_attributes(context),
            links=[trace.Link(by)] if by.is_valid else [],
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                return await call_next()
            except (Snooze, PauseQueue, PauseTask) as snooze:
                span.add_event("snoozed", {"reason": str(snooze)})
                raise
            except BaseException as error:  # a cancellation, too
                measured["error.type"] = kind = class_path(error)
                span.record_exception(error)
                span.set_attribute("error.type", kind)
                span.set_status(trace.StatusCode.ERROR, f"{type(error).__qualname__}: {error}")
                raise
            finally:
                duration.record(time.perf_counter() - started, measured)

    return traced


def _carrier(payload: Any) -> dict[str, str]:
    """Return the trace context of the adder; any client may have written anything there."""
    carrier = payload.get("_trace") if isinstance(payload, dict) else None
    if not isinstance(carrier, dict):
        return {}
    return {name: value for name, value in carrier.items() if isinstance(value, str)}


def _attributes(context: Context) -> dict[str, str | int]:
    job = context.job
    attributes: dict[str, str | int] = {
        "messaging.system": "graphile_worker",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": job.task_identifier,
        "messaging.message.id": str(job.id),
        "messaging.client.id": job.locked_by,
        "messaging.graphile_worker.attempt": job.attempts,
        "messaging.graphile_worker.max_attempts": job.max_attempts,
        **server_attributes(context.server),
    }
    if job.queue_name is not None:
        attributes["messaging.graphile_worker.queue_name"] = job.queue_name
    if job.key is not None:
        attributes["messaging.graphile_worker.job_key"] = job.key
    if isinstance(job.payload, list):
        attributes["messaging.batch.message_count"] = len(job.payload)
    return attributes
