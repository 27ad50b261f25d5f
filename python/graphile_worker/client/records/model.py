"""What is known of jobs that have ended, and what is kept of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

#: How a job ended; ``discarded``: its task, or an administrator, gave it up.
EndState = Literal["completed", "failed", "cancelled", "discarded"]
RecordState = Literal[
    "ready", "scheduled", "running", "completed", "failed", "cancelled", "discarded"
]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A run of a job that has ended."""

    attempt: int
    started_at: datetime | None
    ended_at: datetime
    worker_id: str | None
    outcome: Literal["completed", "failed", "discarded", "cancelled", "crashed"]
    error: str | None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What is known of a job, waiting, running, failed or ended.

    >>> record = utils.find_job(7)
    >>> record.state, record.result, [attempt.error for attempt in record.attempt_log]
    """

    id: int
    state: RecordState
    task_identifier: str
    queue_name: str | None
    key: str | None
    priority: int
    flags: frozenset[str]
    #: None where it was not kept, or from ``job_history``, which does not read it.
    payload: Any
    run_at: datetime
    created_at: datetime
    attempts: int
    max_attempts: int
    #: When the last attempt started; of a running job, when it was claimed.
    started_at: datetime | None
    finished_at: datetime | None
    duration: timedelta | None
    worker_id: str | None
    error: str | None
    #: What the task returned.
    result: Any
    #: Why there is no result, where the task returned one.
    result_problem: str | None
    #: 0 to 1; None: unknown.
    progress: float | None
    progress_message: str | None
    attempt_log: list[Attempt]


@dataclass(frozen=True, slots=True)
class History:
    """Of which task history is kept; ``*`` is all that have no setting of their own."""

    task: str
    keep: timedelta
    results: bool
    payloads: bool
    max_bytes: int
    #: Whether jobs that end are recorded.
    is_kept: bool


@dataclass(frozen=True, slots=True)
class PayloadSchema:
    """What the payloads of a task have to fit when they are added."""

    task: str
    #: JSON Schema 2020-12.
    schema: Any
    on_invalid: Literal["reject", "warn"]
    set_at: datetime
    set_by: str
