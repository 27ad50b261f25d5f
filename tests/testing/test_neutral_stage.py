"""The adapter for the neutral benchmark keeps its contract: lines, rates, and an end in time."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.pg import Database

ADAPTER = Path(__file__).parents[2] / "bench" / "neutral" / "graphile_worker_adapter.py"
METRICS = {
    "enqueue_rate", "completion_rate", "queue_depth", "claim_p50_ms", "claim_p95_ms", "claim_p99_ms",
}  # fmt: skip


@pytest.mark.parametrize("mode", ["fixed", "depth-target"])
def test_the_adapter_prints_what_the_contract_asks_for(db: Database, mode: str) -> None:
    info = db.connect().info
    given = {
        "DATABASE_URL": f"postgres://{info.user}@{info.host}:{info.port}/{db.name}",
        "PRODUCER_MODE": mode, "PRODUCER_RATE": "50", "TARGET_DEPTH": "20", "SAMPLE_EVERY_S": "1",
        "WORKER_COUNT": "4",
    }  # fmt: skip
    command = [sys.executable, str(ADAPTER)]
    environment = {**os.environ, **given}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [json.loads(text) for text in itertools.islice(process.stdout, 20)]
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    assert process.returncode == 0
    first, *metrics = lines
    assert first["kind"] == "descriptor"
    assert first.keys() == {
        "kind", "system", "event_tables", "version", "db_name", "started_at",
    }  # fmt: skip
    assert first["db_name"] == db.name
    assert all(
        line.keys()
        == {"t", "system", "kind", "subject_kind", "subject", "metric", "value", "window_s"}
        for line in metrics
    )
    assert {line["metric"] for line in metrics} == METRICS
    done = sum(line["value"] for line in metrics if line["metric"] == "completion_rate")
    assert done > 0
