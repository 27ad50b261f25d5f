"""A context of a job that no database has, and the processes that are alive."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from graphile_worker.worker.context import ClaimedJob, Context

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


def a_job(**columns: Any) -> ClaimedJob:
    """A job as the database would send it."""
    row = {
        "id": 7, "task_identifier": "t", "payload": None, "queue_name": "q", "priority": -1,
        "run_at": NOW, "attempts": 2, "max_attempts": 25, "last_error": None, "created_at": NOW,
        "updated_at": NOW, "key": None, "locked_at": NOW, "locked_by": "worker", "revision": 0,
        "flags": None, **columns,
    }  # fmt: skip
    epoch = datetime(2000, 1, 1, tzinfo=UTC)
    return ClaimedJob(
        ((value - epoch) // timedelta(microseconds=1)).to_bytes(8, "big", signed=True)
        if isinstance(value, datetime)
        else value
        for value in row.values()
    )


def a_context(payload: Any = None, **columns: Any) -> Context:
    return Context(a_job(payload=payload, **columns), lambda: 1 / 0)  # type: ignore[arg-type, return-value]


def alive(pid: int) -> bool:
    """Whether a process runs: one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
