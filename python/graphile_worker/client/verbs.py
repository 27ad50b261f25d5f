"""What the client can do, each verb once, without input or output.

A verb is a generator: it yields statements with their values, is sent the rows, and returns the
result. The drivers run it, on a connection that waits or on one that is awaited.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from graphile_worker import errors
from graphile_worker.client.statements import Statement, Values, statement
from graphile_worker.job import (
    Cleaned,
    Counts,
    Job,
    JobState,
    TaskSpec,
    check_run_at,
)
from graphile_worker.naming import SCHEMA, version_in, version_key
from graphile_worker.payload import Dumps

logger = logging.getLogger("graphile_worker")

Rows = Sequence[Sequence[Any]]
T = TypeVar("T")
Verb = Generator[tuple[Statement, Values], Rows, T]

#: The oldest version of the extension on which jobs can be added and run.
OLDEST = "1.0.0"
#: The first version with pauses, limits, cancellations, schedules and history.
CONTROLS_SINCE = "1.1.0"
#: The major version that this package knows.
MAJOR = 1

_DEFAULT = TaskSpec()
_NO_FLAGS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Settings:
    """What belongs to a client and not to a job."""

    schema: str = SCHEMA
    dumps: Dumps | None = None
    trace: bool = False


def _flags(flags: str | None) -> frozenset[str]:
    found = json.loads(flags) if flags else None
    return frozenset(found) if isinstance(found, dict) else _NO_FLAGS


def _payload(text: str | None) -> Any:
    """Decode a payload or result; None: there is none, or the role may not read it.

    What Python cannot decode (a number of 5,000 digits, a thousand nested arrays) stays text.
    """
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _named_job(row: Sequence[Any], asked: tuple[str, str | None] | None = None) -> Job:
    """Return a job from a row with its names, or those asked for where they may not be read."""
    id_, identifier, queue_name, payload, flags, *rest = row
    if identifier is None and asked is not None:
        identifier, queue_name = asked
    return Job(id_, str(identifier), queue_name, _payload(payload), _flags(flags), *rest)


def when(run_at: datetime | timedelta | None) -> tuple[datetime | None, str | None]:
    """Return a moment, and an interval in hours: one in days is 23 or 25 hours now and then."""
    if not isinstance(run_at, timedelta):
        return run_at, None
    minutes, rest = divmod(abs(run_at) // timedelta(microseconds=1), 60_000_000)
    sign = "-" if run_at < timedelta() else ""
    return None, f"{sign}{minutes // 60}:{minutes % 60:02}:{rest / 1_000_000:09.6f}"


def remove_job(settings: Settings, job_key: str) -> Verb[Job | None]:
    """Remove the job with a key."""
    key = TaskSpec(job_key=job_key).job_key
    if key is None:
        raise errors.InvalidJobKey("job key is None: pass the key of the job to remove")
    rows = yield statement("remove_job", settings.schema), {"job_key": key}
    return _named_job(rows[0]) if rows else None


def _some_jobs(
    settings: Settings, verb: str, job_ids: Iterable[int], **values: Any
) -> Verb[list[Job]]:
    rows = yield statement(verb, settings.schema), {"job_ids": ids_of(job_ids), **values}
    return [_named_job(row) for row in rows]


def complete_jobs(settings: Settings, job_ids: Iterable[int]) -> Verb[list[Job]]:
    """Delete jobs as completed."""
    return _some_jobs(settings, "complete_jobs", job_ids)


def permanently_fail_jobs(
    settings: Settings, job_ids: Iterable[int], error_message: str | None
) -> Verb[list[Job]]:
    """Let jobs fail permanently."""
    if error_message is not None:
        _texts("error_message", [error_message])
    return _some_jobs(settings, "permanently_fail_jobs", job_ids, error_message=error_message)


def reschedule_jobs(
    settings: Settings,
    job_ids: Iterable[int],
    run_at: datetime | timedelta | None,
    priority: int | None,
    attempts: int | None,
    max_attempts: int | None,
) -> Verb[list[Job]]:
    """Change when and how many times jobs run."""
    TaskSpec(run_at=run_at, priority=priority, max_attempts=max_attempts)
    if attempts is not None and not (_is_whole(attempts) and 0 <= attempts <= 32767):
        raise errors.InvalidMaxAttempts(f"attempts is {attempts!r}: pass a number from 0 to 32767")
    moment, delay = when(run_at)
    return _some_jobs(
        settings, "reschedule_jobs", job_ids, run_at=moment, delay=delay, priority=priority,
        attempts=attempts, max_attempts=max_attempts,
    )  # fmt: skip


def force_unlock_workers(settings: Settings, worker_ids: Iterable[str]) -> Verb[None]:
    """Unlock all that dead workers hold."""
    values = {"worker_ids": _texts("worker_ids", worker_ids)}
    yield statement("force_unlock_workers", settings.schema), values


def list_jobs(
    settings: Settings,
    *,
    ids: Iterable[int] | None = None,
    keys: Iterable[str] | None = None,
    tasks: Iterable[str] | None = None,
    queues: Iterable[str] | None = None,
    states: Iterable[JobState] | None = None,
    after: int | None = None,
    limit: int = 100,
) -> Verb[list[Job]]:
    """Read jobs, by id."""
    if not _is_whole(limit) or not 1 <= limit <= 10000:
        raise errors.InvalidFilter(f"limit is {limit!r}: pass a number from 1 to 10000")
    values = {
        "job_ids": None if ids is None else ids_of(ids),
        "job_keys": _texts("keys", keys),
        "task_identifiers": _texts("tasks", tasks),
        "queue_names": _texts("queues", queues),
        "states": _texts("states", states),
        "after_id": None if after is None else ids_of([after])[0],
        "max_jobs": limit,
    }
    rows = yield statement("list_jobs", settings.schema), values
    return [_named_job(row) for row in rows]


def get_job(settings: Settings, job: int | str) -> Verb[Job | None]:
    """Read the job with an id or a key."""
    found = yield from (
        list_jobs(settings, keys=[job]) if isinstance(job, str) else list_jobs(settings, ids=[job])
    )
    return found[0] if found else None


def counts(settings: Settings) -> Verb[Counts]:
    """Count the jobs."""
    ((ready, scheduled, running, failed),) = yield statement("counts", settings.schema), {}
    return Counts(ready, scheduled, running, failed)


def cleanup(
    settings: Settings,
    what: tuple[str, ...],
    failed_before: datetime | timedelta | None,
    keep_tasks: Iterable[str],
    on_deleted: Callable[[int], None] = lambda jobs: None,
) -> Verb[Cleaned]:
    """Delete failed jobs and collect names; tell how many jobs were deleted so far."""
    unknown = set(what) - {"failed_jobs", "queues", "tasks"}
    if unknown:
        raise errors.InvalidFilter(
            f"cleanup of {sorted(map(str, unknown))} is unknown: use failed_jobs, queues or tasks"
        )
    keep = _texts("keep_tasks", keep_tasks)
    if failed_before is not None:
        check_run_at(failed_before)
    before, age = when(failed_before)
    deleted = queues = tasks = 0
    if "failed_jobs" in what:
        values = {"failed_before": before, "age": age, "max_jobs": _CLEANED_AT_ONCE}
        while True:
            ((batch,),) = yield statement("delete_failed_jobs", settings.schema), values
            deleted += batch
            on_deleted(deleted)
            if batch < _CLEANED_AT_ONCE:
                break
    if "queues" in what:
        ((queues,),) = yield statement("delete_unused_queues", settings.schema), {}
    if "tasks" in what:
        ((tasks,),) = yield statement("delete_unused_tasks", settings.schema), {"keep": keep}
    return Cleaned(deleted, queues, tasks)


def check(schema: str) -> Verb[str]:
    """Return the version of the schema.

    Raise a SchemaError unless it has what this package cannot do without.
    """
    ((exists, body, is_nodes),) = yield statement("check", schema), {"schema": schema}
    where = f"the schema {schema} of this database"
    named = "" if schema == SCHEMA else f" --schema {schema}"
    version = version_in(body)
    if version is None and is_nodes:
        raise errors.SchemaTooOld(
            f"{where} was made by Node's graphile-worker: run `gw-install adopt{named}`"
        )
    if version is None:
        what = "has no graphile_worker" if exists else "does not exist"
        raise errors.SchemaMissing(f"{where} {what}: run `gw-install install{named}`")
    if version_key(version) < version_key(OLDEST):
        raise errors.SchemaTooOld(
            f"{where} has version {version}, and this package needs {OLDEST} or later:"
            f" run `gw-install upgrade{named}`"
        )
    if version_key(version)[0] > MAJOR:
        raise errors.SchemaTooNew(
            f"{where} has version {version}, and this package knows only {MAJOR}.x:"
            " run `pip install -U graphile-worker`"
        )
    return version


def has_controls(version: str) -> bool:
    """Whether a version has pauses, limits, cancellations, schedules and history."""
    return version_key(version) >= version_key(CONTROLS_SINCE)


_CLEANED_AT_ONCE = 10000


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def ids_of(ids: Iterable[int]) -> list[int]:
    """Return the ids of jobs; raise InvalidFilter for what is none."""
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise errors.InvalidFilter(f"{ids!r} is not a list of job ids")
    found = list(ids)
    for one in found:
        if not _is_whole(one) or not -(2**63) <= one < 2**63:
            raise errors.InvalidFilter(f"job id {one!r} is not a 64-bit integer")
    return found


def _texts(what: str, texts: Iterable[str] | None) -> list[str] | None:
    if texts is None:
        return None
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise errors.InvalidFilter(f"{what} is {texts!r}: pass a list of texts")
    found = list(texts)
    for one in found:
        if not isinstance(one, str) or "\0" in one:
            raise errors.InvalidFilter(f"{what} holds {one!r}: pass texts without NUL characters")
    return found
