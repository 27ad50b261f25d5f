"""The verbs about records of jobs, each once, without input or output."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from graphile_worker import errors
from graphile_worker.client.records.model import (
    Attempt,
    EndState,
    History,
    JobRecord,
    PayloadSchema,
)
from graphile_worker.client.statements import statement
from graphile_worker.client.verbs import (
    Settings,
    Verb,
    _flags,
    _named_job,
    _payload,
    _texts,
    ids_of,
    when,
)
from graphile_worker.job import Job


class Result(NamedTuple):
    """How a job stands whose result is awaited."""

    #: That of a JobRecord; None: there is neither a job nor a record.
    state: str | None
    #: JSON text.
    result: str | None
    problem: str | None
    error: str | None
    #: Of a job that has not ended: whether its result will be kept.
    is_kept: bool | None


def keep_history(
    settings: Settings, task: str | None, keep: timedelta, results: bool, payloads: bool,
    max_bytes: int,
) -> Verb[None]:  # fmt: skip
    """Keep the history of a task, or of all."""
    values = {
        "task": _name("task", task),
        "keep": _span("keep", keep),
        "results": _yes("results", results),
        "payloads": _yes("payloads", payloads),
        "max_bytes": max_bytes,
    }
    if type(max_bytes) is not int or abs(max_bytes) >= 2**31:
        raise errors.InvalidHistory(f"max_bytes is {max_bytes!r}: pass a whole number")
    yield statement("keep_history", settings.schema), values


def stop_history(settings: Settings, task: str | None) -> Verb[bool]:
    """Record no more jobs of a task, or of all."""
    values = {"task": _name("task", task)}
    ((stopped,),) = yield statement("stop_history", settings.schema), values
    return bool(stopped)


def histories(settings: Settings) -> Verb[list[History]]:
    """Read of which tasks history is kept."""
    rows = yield statement("histories", settings.schema), {}
    return [History(*row) for row in rows]


def keep_failed_jobs(settings: Settings, keep: timedelta | None) -> Verb[timedelta | None]:
    """Set how long failed jobs are kept."""
    values = {"keep": None if keep is None else _span("keep", keep)}
    ((before,),) = yield statement("keep_failed_jobs", settings.schema), values
    found: timedelta | None = before
    return found


def on_dead_letter(
    settings: Settings, task: str | None, failed_task: str | None
) -> Verb[str | None]:
    """Set the task of dead letters."""
    values = {"task": _name("task", task), "failed_task": _name("failed_task", failed_task)}
    ((before,),) = yield statement("on_dead_letter", settings.schema), values
    found: str | None = before
    return found


def discard_jobs(settings: Settings, job_ids: Iterable[int], reason: str | None) -> Verb[list[Job]]:
    """Delete failed jobs."""
    values = {"job_ids": ids_of(job_ids), "reason": _name("reason", reason)}
    rows = yield statement("discard_jobs", settings.schema), values
    return [_named_job(row) for row in rows]


def find_job(settings: Settings, job_id: int) -> Verb[JobRecord | None]:
    """Read all that is known of a job."""
    rows = yield statement("find_job", settings.schema), {"job_id": ids_of([job_id])[0]}
    for *row, payload, progress, message in rows:
        return _record(row, _payload(payload), progress, message)
    return None


def job_history(
    settings: Settings, tasks: Iterable[str] | None, states: Iterable[EndState] | None,
    before: JobRecord | tuple[datetime, int] | None, limit: int,
) -> Verb[list[JobRecord]]:  # fmt: skip
    """Read a page of the history, before a record or its end and id."""
    if isinstance(before, JobRecord):
        if before.finished_at is None:
            raise errors.InvalidFilter(f"before is job {before.id}, which has not ended")
        before = before.finished_at, before.id
    if type(limit) is not int or not 1 <= limit <= 10000:
        raise errors.InvalidFilter(f"limit is {limit!r}: pass a number from 1 to 10000")
    wanted = _texts("states", states)
    unknown = set(wanted or ()) - {"completed", "failed", "cancelled", "discarded"}
    if unknown:
        raise errors.InvalidFilter(
            f"states holds {sorted(unknown)}: use completed, failed, cancelled or discarded"
        )
    values = {
        "tasks": _texts("tasks", tasks),
        "states": wanted,
        "before_time": None if before is None else before[0],
        "before_id": None if before is None else before[1],
        "limit": limit,
    }
    rows = yield statement("job_history", settings.schema), values
    return [_record(row) for row in rows]


def set_payload_schema(settings: Settings, task: str, schema: Any, on_invalid: str) -> Verb[Any]:
    """Set the schema of a task's payloads."""
    if not isinstance(task, str):
        raise errors.InvalidIdentifier(f"task is {task!r}: pass a text")
    values = {"task": task, "schema": _schema(schema), "on_invalid": on_invalid}
    ((before,),) = yield statement("set_payload_schema", settings.schema), values
    return _payload(before)


def payload_schemas(settings: Settings) -> Verb[list[PayloadSchema]]:
    """Read the schemas of payloads."""
    rows = yield statement("payload_schemas", settings.schema), {}
    return [PayloadSchema(task, _payload(schema), *rest) for task, schema, *rest in rows]


def find_unfit_jobs(
    settings: Settings, task: str, schema: Any, after: int | None, limit: int
) -> Verb[list[tuple[int, str]]]:
    """Find waiting jobs whose payloads do not fit."""
    values = {"task": task, "schema": _schema(schema), "after_id": after, "max_jobs": limit}
    rows = yield statement("find_unfit_jobs", settings.schema), values
    return [(job_id, problem) for job_id, problem in rows]


def _schema(schema: Any) -> str | None:
    if schema is not None and not isinstance(schema, dict | bool):
        raise errors.InvalidSchema(f"schema is {schema!r:.80}: pass a dict, or None for no schema")
    try:
        return None if schema is None else json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise errors.InvalidSchema(f"schema is no JSON: {error}") from error


def get_results(settings: Settings, job_ids: Iterable[int]) -> Verb[dict[int, Result]]:
    """Read how jobs stand."""
    rows = yield statement("get_results", settings.schema), {"job_ids": ids_of(job_ids)}
    return {job_id: Result(*row) for job_id, *row in rows}


def watch_results(settings: Settings, waiter: str, seconds: int) -> Verb[None]:
    """Ask to be notified of results."""
    values = {"waiter": waiter, "seconds": seconds}
    yield statement("watch_results", settings.schema), values


def outcome(job_id: int, found: Result) -> Any:
    """Return the result of a job that has ended; raise what came of it instead."""
    if found.state == "completed":
        if found.problem is not None:
            raise errors.ResultUnavailable(f"job {job_id} is completed. {found.problem}")
        return _payload(found.result)
    if found.state == "cancelled":
        cancelled = errors.JobCancelled()
        cancelled.args = (f"job {job_id}: {found.error}",)
        raise cancelled
    raise errors.JobFailed(job_id, found.error)


def _record(
    row: Sequence[Any], payload: Any = None, progress: float | None = None,
    message: str | None = None,
) -> JobRecord:  # fmt: skip
    (
        id_, state, task, queue, key, priority, flags, run_at, created_at, attempts, most,
        started_at, finished_at, duration, worker, error, result, problem, log,
    ) = row  # fmt: skip
    return JobRecord(
        id_, state, task, queue, key, priority, _flags(flags), payload, run_at, created_at,
        attempts, most, started_at, finished_at, duration, worker, error, _payload(result), problem,
        progress, message, [_attempt(**each) for each in json.loads(log or "[]")],
    )  # fmt: skip


def _attempt(started_at: str | None, ended_at: str, **rest: Any) -> Attempt:
    started = None if started_at is None else datetime.fromisoformat(started_at)
    return Attempt(started_at=started, ended_at=datetime.fromisoformat(ended_at), **rest)


def _name(what: str, value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or "\0" in value):
        raise errors.InvalidHistory(f"{what} is {value!r}: pass a text without NUL characters")
    return value


def _span(what: str, value: object) -> str | None:
    if not isinstance(value, timedelta):
        raise errors.InvalidHistory(f"{what} is {value!r}: pass a timedelta")
    return when(value)[1]


def _yes(what: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise errors.InvalidHistory(f"{what} is {value!r}: pass True or False")
    return value
