"""Metrics for Prometheus, and a /healthz that covers LISTEN and fetching."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from weakref import WeakKeyDictionary
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from graphile_worker.errors import GraphileWorkerError
from graphile_worker.log import logger

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from prometheus_client import CollectorRegistry

    from graphile_worker.worker.context import ClaimedJob
    from graphile_worker.worker.events import Event, Events


OUTCOMES = ("success", "error", "failed", "snoozed", "cancelled")
_RUN = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_WAIT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 900, 3600, 6 * 3600, 86400)
_TRIP = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_SIZE = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)


def _prometheus() -> ModuleType:
    try:
        import prometheus_client
    except ImportError as error:
        raise GraphileWorkerError(
            "metrics are asked for, but prometheus_client is not installed:"
            " run `pip install 'graphile-worker[metrics]'`"
        ) from error
    return prometheus_client


class _Instruments:
    """The metrics of one registry, which all workers of a process share."""

    def __init__(self, registry: CollectorRegistry) -> None:
        prometheus = _prometheus()

        def counter(name: str, what: str, *labels: str) -> Any:
            return prometheus.Counter(f"graphile_worker_{name}", what, labels, registry=registry)

        def histogram(name: str, what: str, buckets: Iterable[float], *labels: str) -> Any:
            return prometheus.Histogram(
                f"graphile_worker_{name}", what, labels, buckets=buckets, registry=registry
            )

        self.jobs = counter(
            "jobs",
            f"Runs, by outcome: {', '.join(OUTCOMES)}",
            "task",
            "outcome",
        )
        self.run = histogram("job_run_seconds", "How long tasks ran", _RUN, "task")
        self.wait = histogram("job_wait_seconds", "From run_at to the start", _WAIT, "task")
        self.fetch = histogram("fetch_seconds", "How long a fetch took", _TRIP)
        self.fetched = histogram("fetch_jobs", "Jobs per fetch", _SIZE)
        self.flush = histogram("flush_seconds", "How long it took to write results", _TRIP)
        self.flushed = histogram("flush_jobs", "Results per write", _SIZE)
        self.listen_errors = counter("listen_errors", "How many times LISTEN was lost")
        self.database_errors = counter("database_errors", "Times the database was not to be used")
        self.recovered = counter("recovered_jobs", "Jobs of dead workers that were unlocked")
        self.lost = counter("lost", "Times a worker continued under a new id")
        self.cron = counter("cron_fired", "Ticks that added jobs", "crontab")


_instruments: WeakKeyDictionary[CollectorRegistry, _Instruments] = WeakKeyDictionary()
_making = threading.Lock()


def _of(registry: CollectorRegistry | None) -> _Instruments:
    chosen: CollectorRegistry = registry or _prometheus().REGISTRY
    with _making:
        if chosen not in _instruments:
            _instruments[chosen] = _Instruments(chosen)
        return _instruments[chosen]


class Metrics:
    """Count a worker's events in a prometheus_client registry.

    >>> Metrics(events)

    Without ``registry``, in the global one, where the metrics of tasks are, too. Workers of one
    process may share a registry. Raise GraphileWorkerError where prometheus_client is missing.
    """

    def __init__(self, events: Events, *, registry: CollectorRegistry | None = None) -> None:
        self._all = _of(registry)
        # Looking up labels takes longer than counting.
        self._tasks: dict[str, _OfTask] = {}
        events.on("job:start")(self._on_start)
        events.on(*(f"job:{outcome}" for outcome in OUTCOMES))(self._on_outcome)
        events.on("fetch")(lambda event: _batch(event, self._all.fetch, self._all.fetched))
        events.on("flush")(lambda event: _batch(event, self._all.flush, self._all.flushed))
        events.on("listen:error")(lambda event: self._all.listen_errors.inc())
        events.on("pool:error")(lambda event: self._all.database_errors.inc())
        events.on("recovered")(lambda event: self._all.recovered.inc(event.count or 0))
        events.on("worker:lost")(lambda event: self._all.lost.inc())
        events.on("cron:fired")(self._on_cron)

    def _of(self, job: ClaimedJob) -> _OfTask:
        name = job.task_identifier
        if name not in self._tasks:
            self._tasks[name] = _OfTask(self._all, name)
        return self._tasks[name]

    def _on_start(self, event: Event) -> None:
        if event.job is not None:
            # By two machines' clocks, which may differ.
            waited = time.time() - event.job.run_at.timestamp()
            self._of(event.job).wait.observe(max(0.0, waited))

    def _on_outcome(self, event: Event) -> None:
        if event.job is not None:
            of_task = self._of(event.job)
            of_task.outcomes[event.name].inc()
            if event.seconds is not None:
                of_task.run.observe(event.seconds)

    def _on_cron(self, event: Event) -> None:
        self._all.cron.labels((event.data or {}).get("identifier", "")).inc()


def _batch(event: Event, seconds: Any, count: Any) -> None:
    if event.seconds is not None:
        seconds.observe(event.seconds)
    if event.count is not None:
        count.observe(event.count)


class _OfTask:
    """The metrics of one task."""

    def __init__(self, all_: _Instruments, task: str) -> None:
        self.run = all_.run.labels(task)
        self.wait = all_.wait.labels(task)
        self.outcomes = {f"job:{outcome}": all_.jobs.labels(task, outcome) for outcome in OUTCOMES}


class Health(Protocol):
    """A worker's health: a dataclass with these fields, and others."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def ok(self) -> bool: ...
    @property
    def listening(self) -> bool | None: ...
    @property
    def running(self) -> int: ...
    @property
    def prefetched(self) -> int: ...
    @property
    def nodes(self) -> Mapping[str, Health]: ...


#: Seconds that a client may be silent, and that a request may take in all.
_SILENCE, _REQUEST = 5, 15
#: Clients that wait to be accepted, while others are served.
_BACKLOG = 128


class _Quiet(WSGIRequestHandler):
    """Serves without logging each probe, and disconnects slow clients."""

    timeout = _SILENCE

    def handle(self) -> None:
        """Serve one request, in time."""
        alarm = threading.Timer(_REQUEST, self._cut)
        alarm.daemon = True
        alarm.start()
        try:
            super().handle()
        except OSError as error:  # a time-out, or a client that has gone
            logger.debug("a client of the metrics port was cut off: %s", error)
        finally:
            alarm.cancel()

    def _cut(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library calls it so
        pass


class MetricsServer:
    """Serve /metrics and /healthz over HTTP, from a thread of its own.

    ``health`` is called in that thread at each request, so that a worker whose loop stands still
    is found out: it must not wait. /healthz is 200 if ok, else 503, with all of it as JSON;
    /metrics has how many jobs run and are prefetched, and the registry.

    >>> server = MetricsServer(worker.health)
    >>> host, port = await server.start("127.0.0.1", 9187)
    """

    def __init__(
        self, health: Callable[[], Health], *, registry: CollectorRegistry | None = None
    ) -> None:
        self._health = health
        self._registry = registry
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 9187) -> tuple[str, int]:
        """Listen, and return the address; port 0 is any that is free.

        Raise GraphileWorkerError where prometheus_client is missing, or the address is in use or
        none of this machine's.
        """
        app = self._app()
        try:
            # What a name means is looked up, which may take its time.
            self._server = await asyncio.to_thread(_listen, host, port, app)
        except (OSError, OverflowError) as error:
            raise GraphileWorkerError(
                f"metrics cannot be served at {host}:{port} ({_reason(error)}): choose another"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="graphile_worker metrics", daemon=True,
            kwargs={"poll_interval": 0.1},
        )  # fmt: skip
        self._thread.start()
        address = self._server.server_address
        return str(address[0]), int(address[1])

    async def close(self) -> None:
        """Stop listening; may be called again."""
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            await asyncio.to_thread(server.shutdown)
            self._thread.join()
            server.server_close()

    def _app(self) -> WSGIApplication:
        prometheus = _prometheus()
        # Of its own: the other one may be shared with other workers, which have their own numbers.
        both = prometheus.CollectorRegistry()
        both.register(self)
        both.register(self._registry or prometheus.REGISTRY)
        metrics: WSGIApplication = prometheus.make_wsgi_app(both)

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            path = environ.get("PATH_INFO")
            if path == "/metrics":
                return metrics(environ, start_response)
            if path == "/healthz":
                status, body = self._answer()
                kind = "application/json"
            else:
                status, body = "404 Not Found", "There are /metrics and /healthz.\n"
                kind = "text/plain; charset=utf-8"
            start_response(status, [("Content-Type", kind), ("Cache-Control", "no-store")])
            return [body.encode()]

        return app

    def _answer(self) -> tuple[str, str]:
        try:
            health = self._health()
            status = "200 OK" if health.ok else "503 Service Unavailable"
            return status, json.dumps(asdict(health))
        except Exception as error:
            logger.exception("the worker does not say how it is")
            problem = f"the worker does not say how it is: {error!r}"
            return "503 Service Unavailable", json.dumps({"ok": False, "problems": [problem]})

    def collect(self) -> Iterator[Any]:
        """Give prometheus_client the state of the worker."""
        from prometheus_client.core import GaugeMetricFamily

        try:
            health = self._health()
        except Exception:
            logger.exception("the worker does not say how it is")
            return
        for name, what, value in (
            ("healthy", "Whether /healthz returns 200", health.ok),
            ("listening", "Whether LISTEN holds", health.listening),
            ("running_jobs", "Jobs that are running", health.running),
            ("prefetched_jobs", "Jobs that are fetched and have not started", health.prefetched),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"graphile_worker_{name}", what, value=value)
        if health.nodes:
            yield from _of_nodes(health.nodes)


def _of_nodes(nodes: Mapping[str, Health]) -> Iterator[Any]:
    """Give the state of the worker of each database."""
    from prometheus_client.core import GaugeMetricFamily

    for name, what in (
        ("ok", "Whether the database is served"),
        ("running", "Jobs of the database that are running"),
        ("prefetched", "Jobs of the database that are fetched and have not started"),
    ):
        family = GaugeMetricFamily(f"graphile_worker_node_{name}", what, labels=["node"])
        for node, health in nodes.items():
            family.add_metric([node], getattr(health, name))
        yield family


def _listen(host: str, port: int, app: WSGIApplication) -> WSGIServer:
    from prometheus_client.exposition import ThreadingWSGIServer

    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)

    class Server(ThreadingWSGIServer):
        address_family = found[0][0]
        request_queue_size = _BACKLOG

        def server_bind(self) -> None:
            # Not as the library does, which asks DNS for the name of the address.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(self.server_address)
            self.server_address = self.socket.getsockname()
            self.server_name, self.server_port = str(found[0][4][0]), self.server_address[1]
            self.setup_environ()

    return make_server(str(found[0][4][0]), port, app, Server, handler_class=_Quiet)


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
