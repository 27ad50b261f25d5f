"""A span and the metrics of OpenTelemetry around adding jobs, with ``trace=True``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from typing import Any

from graphile_worker import __version__

#: The boundaries of histograms of the messaging conventions, in seconds.
BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

#: Host and port of a database's server.
Server = tuple[str, int]
#: Takes the server to which the jobs are sent, while a span about that is open.
to_server: ContextVar[Callable[[Server | None], None] | None] = ContextVar(
    "to_server", default=None
)

#: Takes the ids of the jobs that were added.
Sent = Callable[..., None]


def _ignore(*ids: int) -> None:
    """Do nothing: no trace is wanted."""


_UNTRACED: AbstractContextManager[Sent] = nullcontext(_ignore)


def sending(trace: bool, task: str | None, count: int = 1) -> AbstractContextManager[Sent]:
    """Return a block that adds jobs: a span of kind PRODUCER named ``send <task>``.

    ``task`` is None for jobs of several tasks. Without OpenTelemetry there is no span.
    """
    if not trace:
        return _UNTRACED
    try:
        import opentelemetry.metrics
        import opentelemetry.trace  # noqa: F401
    except ImportError:
        return _UNTRACED  # what writes the context into the payload raises the error
    return _span(task, count)


def class_path(error: BaseException) -> str:
    """Return the module and name of an error's class."""
    return f"{type(error).__module__}.{type(error).__qualname__}"


def server_of(conn: Any) -> Server | None:
    """Return host, or folder of sockets, and port of whatever verbs run on, where it tells them."""
    if isinstance(conn, str) or hasattr(conn, "alias"):  # Django
        from django.db import connections

        wrapper = connections[conn if isinstance(conn, str) else conn.alias]
        wrapper.ensure_connection()
        conn = wrapper.connection
    if hasattr(conn, "get_bind") or hasattr(conn, "engine"):  # SQLAlchemy
        url = (conn.get_bind() if hasattr(conn, "get_bind") else conn).engine.url
        host, port = url.host, url.port or 5432
    else:
        info = getattr(getattr(conn, "connection", conn), "info", None)
        host, port = getattr(info, "host", None), getattr(info, "port", None)
    return (host, port) if host and port else None


def server_attributes(server: Server | None) -> dict[str, str | int]:
    """Return the server as attributes of spans and metrics."""
    return {} if server is None else {"server.address": server[0], "server.port": server[1]}


@cache
def instruments() -> tuple[Any, Any]:
    """Return the counter of jobs that were sent, and the histogram of how long that took."""
    from opentelemetry import metrics

    meter = metrics.get_meter("graphile_worker", __version__)
    return (
        meter.create_counter(
            "messaging.client.sent.messages", "{message}", "Jobs that were to be added."
        ),
        meter.create_histogram(
            "messaging.client.operation.duration", "s", "How long adding jobs took.",
            explicit_bucket_boundaries_advisory=BOUNDARIES,
        ),
    )  # fmt: skip


@contextmanager
def _span(task: str | None, count: int) -> Iterator[Sent]:
    from opentelemetry import trace

    attributes: dict[str, Any] = {
        "messaging.system": "graphile_worker",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
    }
    if task is not None:
        attributes["messaging.destination.name"] = task
    sent, duration = instruments()
    started = time.perf_counter()
    measured = {key: value for key, value in attributes.items() if not key.endswith("type")}
    tracer = trace.get_tracer("graphile_worker", __version__)
    with tracer.start_as_current_span(
        "send" if task is None else f"send {task}", kind=trace.SpanKind.PRODUCER,
        attributes=attributes,
    ) as span:  # fmt: skip

        def note(*ids: int) -> None:
            if len(ids) == 1:
                span.set_attribute("messaging.message.id", str(ids[0]))
            if count != 1:
                span.set_attribute("messaging.batch.message_count", len(ids))

        def to(server: Server | None) -> None:
            found = server_attributes(server)
            span.set_attributes(found)
            measured.update(found)

        to_server.set(to)
        try:
            yield note
        except BaseException as error:
            measured["error.type"] = class_path(error)
            span.set_attribute("error.type", measured["error.type"])
            raise
        finally:
            to_server.set(None)
            sent.add(count, measured)
            duration.record(time.perf_counter() - started, measured)
