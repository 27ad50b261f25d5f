"""What Prometheus and the probes of a cluster are told about a worker."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from graphile_worker.errors import GraphileWorkerError
from graphile_worker.worker import metrics
from graphile_worker.worker.context import ClaimedJob
from graphile_worker.worker.events import Event, Events
from graphile_worker.worker.metrics import Metrics, MetricsServer
from prometheus_client import CollectorRegistry, Counter

from worker.contexts import a_job

pytestmark = pytest.mark.majors(18)


@dataclass(frozen=True)
class Health:
    ok: bool = True
    listening: bool | None = True
    last_fetch_seconds_ago: float | None = 0.5
    draining: bool = False
    running: int = 3
    prefetched: int = 4
    problems: list[str] = field(default_factory=list)
    nodes: dict[str, Health] = field(default_factory=dict)


WELL = Health()


def job(id_: int = 1, task: str = "send_email", *, waited: float = 0.0) -> ClaimedJob:
    return a_job(id=id_, task_identifier=task, run_at=datetime.now(UTC) - timedelta(seconds=waited))


class Watched:
    """The events of a worker, and what a registry says of them."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.events = Events()
        self.metrics = Metrics(self.events, registry=self.registry)

    def emit(self, name: str, **fields: Any) -> None:
        self.events.emit(Event(name, "w1", **fields))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"graphile_worker_{name}", labels)


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.mark.parametrize("outcome", ["success", "error", "failed", "snoozed"])
def test_each_outcome_of_a_task_is_counted_and_its_time_taken(
    watched: Watched, outcome: str
) -> None:
    watched.emit("job:start", job=job(waited=10))
    watched.emit(f"job:{outcome}", job=job(), seconds=0.25)
    assert watched.value("jobs_total", task="send_email", outcome=outcome) == 1
    assert watched.value("job_run_seconds_sum", task="send_email") == 0.25
    waited = watched.value("job_wait_seconds_sum", task="send_email")
    assert waited is not None
    assert 10 <= waited < 20


def test_a_clock_that_is_behind_that_of_the_database_makes_no_negative_wait(
    watched: Watched,
) -> None:
    watched.emit("job:start", job=job(waited=-60))
    assert watched.value("job_wait_seconds_sum", task="send_email") == 0


def test_a_job_that_never_started_is_counted_without_a_time(watched: Watched) -> None:
    watched.emit("job:failed", job=job(), error=ValueError("no such task"))
    assert watched.value("jobs_total", task="send_email", outcome="failed") == 1
    assert watched.value("job_run_seconds_count", task="send_email") == 0


def test_jobs_that_are_taken_at_once_are_measured(watched: Watched) -> None:
    watched.emit("fetch", count=3, seconds=0.002)
    assert watched.value("fetch_jobs_sum") == 3
    assert watched.value("fetch_seconds_sum") == 0.002


def test_results_that_are_written_at_once_are_measured(watched: Watched) -> None:
    watched.emit("flush", count=40, seconds=0.004)
    assert watched.value("flush_jobs_sum") == 40
    assert watched.value("flush_jobs_bucket", le="50.0") == 1
    assert watched.value("flush_seconds_sum") == 0.004


def test_what_goes_wrong_around_jobs_is_counted(watched: Watched) -> None:
    watched.emit("listen:error", error=OSError("no route"))
    watched.emit("pool:error", error=OSError("no route"))
    watched.emit("recovered", count=4, data={"worker_id": "w0"})
    watched.emit("worker:lost")
    watched.emit("cron:fired", data={"identifier": "nightly"})
    assert watched.value("listen_errors_total") == 1
    assert watched.value("database_errors_total") == 1
    assert watched.value("recovered_jobs_total") == 4
    assert watched.value("lost_total") == 1
    assert watched.value("cron_fired_total", crontab="nightly") == 1


def test_workers_of_one_process_share_a_registry() -> None:
    one = Watched()
    other = Watched(one.registry)
    for watched in (one, other):
        watched.emit("job:success", job=job(), seconds=1.0)
    assert one.value("jobs_total", task="send_email", outcome="success") == 2


def test_without_the_library_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from graphile_worker.worker.events import Events\n"
        "from graphile_worker.worker.metrics import Metrics\n"
        "Metrics(Events())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "GraphileWorkerError: metrics are asked for" in done.stderr
    assert "pip install 'graphile-worker[metrics]'" in done.stderr


def get(url: str) -> tuple[int, str, str]:
    try:
        answer = urllib.request.urlopen(url, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


def served(
    health: Callable[[], Health],
    test: Callable[[str], Coroutine[Any, Any, None]],
    registry: CollectorRegistry | None = None,
) -> None:
    """Run the test beside a server, with its address."""

    async def main() -> None:
        server = MetricsServer(health, registry=registry or CollectorRegistry())
        host, port = await server.start("127.0.0.1", 0)
        try:
            await test(f"http://{host}:{port}")
        finally:
            await server.close()
            await server.close()

    asyncio.run(main())


def test_the_dashboard_of_grafana_asks_for_metrics_and_labels_that_there_are() -> None:
    board = json.loads((Path(__file__).parents[2] / "docs" / "grafana.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [each["query"] for each in board["templating"]["list"]]
    watched = Watched()
    watched.emit("job:start", job=job())
    watched.emit("job:success", job=job(), seconds=1.0)

    async def test(url: str) -> None:
        _, _, text = await asyncio.to_thread(get, f"{url}/metrics")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        names = {re.split(r"[{ ]", line)[0] for line in lines}
        labels = {label for line in lines for label in re.findall(r"(\w+)=\"", line)}
        for query in asked:
            assert set(re.findall(r"graphile_worker_\w+", query)) <= names, query
            by = re.findall(r"by \(([^)]*)\)", query)
            used = {name.strip() for group in by for name in group.split(",")}
            assert used <= labels, query
            assert query.count("(") == query.count(")")

    served(lambda: WELL, test, watched.registry)


def test_metrics_are_served_with_those_of_the_tasks() -> None:
    watched = Watched()
    Counter("emails", "Sent", registry=watched.registry).inc()
    watched.emit("job:success", job=job(), seconds=1.0)

    async def test(url: str) -> None:
        status, kind, text = await asyncio.to_thread(get, f"{url}/metrics")
        assert status == 200
        assert kind.startswith("text/plain")
        assert 'graphile_worker_jobs_total{outcome="success",task="send_email"} 1.0' in text
        assert "emails_total 1.0" in text
        lines = {line for line in text.splitlines() if not line.startswith("#")}
        assert lines >= {
            "graphile_worker_healthy 1.0", "graphile_worker_listening 1.0",
            "graphile_worker_running_jobs 3.0", "graphile_worker_prefetched_jobs 4.0",
        }  # fmt: skip

    served(lambda: WELL, test, watched.registry)


def test_a_worker_that_only_polls_does_not_say_whether_it_listens() -> None:
    async def test(url: str) -> None:
        _, _, text = await asyncio.to_thread(get, f"{url}/metrics")
        assert "graphile_worker_listening" not in text
        assert "graphile_worker_healthy 0.0" in text

    served(lambda: Health(ok=False, listening=None), test)


def test_a_worker_that_is_well_answers_200_and_one_that_is_not_503() -> None:
    answers = [WELL, Health(ok=False, listening=False, problems=["LISTEN is lost"])]

    async def test(url: str) -> None:
        well = await asyncio.to_thread(get, f"{url}/healthz")
        ill = await asyncio.to_thread(get, f"{url}/healthz")
        assert (well[0], well[1]) == (200, "application/json")
        assert json.loads(well[2]) == {
            "ok": True, "listening": True, "last_fetch_seconds_ago": 0.5, "draining": False,
            "running": 3, "prefetched": 4, "problems": [], "nodes": {},
        }  # fmt: skip
        assert ill[0] == 503
        assert json.loads(ill[2])["problems"] == ["LISTEN is lost"]

    served(lambda: answers.pop(0), test)


def test_a_loop_that_stands_still_does_not_keep_the_probe_from_its_answer() -> None:
    async def test(url: str) -> None:
        assert get(f"{url}/healthz")[0] == 200  # blocks the loop meanwhile

    served(lambda: WELL, test)


def test_health_that_cannot_be_had_is_an_illness(caplog: pytest.LogCaptureFixture) -> None:
    def health() -> Health:
        raise RuntimeError("no worker")

    async def test(url: str) -> None:
        status, _, text = await asyncio.to_thread(get, f"{url}/healthz")
        assert status == 503
        assert "RuntimeError('no worker')" in json.loads(text)["problems"][0]
        status, _, text = await asyncio.to_thread(get, f"{url}/metrics")
        assert status == 200
        assert "graphile_worker_healthy" not in text

    served(health, test)
    assert "does not say how it is" in caplog.text


def test_other_paths_say_which_there_are() -> None:
    async def test(url: str) -> None:
        assert await asyncio.to_thread(get, f"{url}/") == (
            404, "text/plain; charset=utf-8", "There are /metrics and /healthz.\n",
        )  # fmt: skip

    served(lambda: WELL, test)


def test_clients_that_dawdle_are_cut_off_and_in_nobodys_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics._Quiet, "timeout", 0.2)

    async def test(url: str) -> None:
        port = int(url.rpartition(":")[2])
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
        idle[0].sendall(b"GET /metr")
        assert (await asyncio.to_thread(get, f"{url}/metrics"))[0] == 200
        for each in idle:
            each.settimeout(30)
            assert await asyncio.to_thread(each.recv, 1) == b"", "it is cut off"
            each.close()

    served(lambda: WELL, test)


def test_a_port_that_is_taken_is_named() -> None:
    async def test(url: str) -> None:
        port = int(url.rpartition(":")[2])
        with pytest.raises(GraphileWorkerError, match=rf"127\.0\.0\.1:{port} \(Address already"):
            await MetricsServer(lambda: WELL).start("127.0.0.1", port)

    served(lambda: WELL, test)


@pytest.mark.parametrize(("host", "port"), [("256.1.1.1", 0), ("203.0.113.7", 0), ("::1", 99999)])
def test_an_address_that_is_none_of_ours_is_refused(host: str, port: int) -> None:
    with pytest.raises(GraphileWorkerError, match="metrics cannot be served at"):
        asyncio.run(MetricsServer(lambda: WELL).start(host, port))
