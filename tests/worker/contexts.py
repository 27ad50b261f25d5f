"""A context of a job that no database has, and the processes that are alive."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graphile_worker.worker.context import ClaimedJob, Context

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


def a_context(payload: Any = None, **changes: Any) -> Context:
    job = ClaimedJob(
        7, "t", payload, "q", -1, NOW, 2, 25, None, NOW, NOW, None, NOW, "worker", 0, None
    )  # fmt: skip
    return Context(job._replace(**changes), lambda: 1 / 0)  # type: ignore[arg-type, return-value]


def alive(pid: int) -> bool:
    """Whether a process runs: one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
