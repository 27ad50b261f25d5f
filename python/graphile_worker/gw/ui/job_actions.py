"""What can be done to jobs, one or many."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

from graphile_worker.errors import GraphileWorkerError, InvalidArgument
from graphile_worker.gw.change import AT_ONCE
from graphile_worker.gw.jobs import retry
from graphile_worker.gw.queue import Queue
from graphile_worker.gw.ui.action import Action, Field, Says, Values, read, says, text
from graphile_worker.gw.values import many, moment, whole
from graphile_worker.job import Job

_FAILED = """
    select id from {s}.failed_jobs
    where (%(task)s::text is null or task_identifier = %(task)s::text)
    and (%(queue)s::text is null or queue_name = %(queue)s::text)
    and (%(error)s::text is null
      or pg_catalog.strpos(pg_catalog.lower(last_error), pg_catalog.lower(%(error)s::text)) > 0)
    and (%(last)s::bigint is null or id <= %(last)s::bigint)
    order by id
"""


def _id(values: Values) -> int:
    found: int = read(values, "id", whole(1, 2**63 - 1), 0)
    return found


def _one(what: str) -> Says:
    return lambda queue, values: f"Job {_id(values)} {what}."


def _changed(values: Values, jobs: Iterable[Job], what: str) -> str:
    if not list(jobs):
        raise GraphileWorkerError(
            f"job {_id(values)} runs, has ended or changed state; nothing was changed"
        )
    return f"{what} job {_id(values)}."


def _retry(queue: Queue, values: Values) -> str:
    jobs = retry(queue.utils, [_id(values)])
    return _changed(values, jobs, "Retried")


def _run_now(queue: Queue, values: Values) -> str:
    jobs = queue.utils.reschedule_jobs([_id(values)], run_at=timedelta())
    return _changed(values, jobs, "Made due now:")


def _reschedule(queue: Queue, values: Values) -> str:
    changes = {
        "run_at": read(values, "run_at", moment),
        "priority": read(values, "priority", whole(-32768, 32767)),
        "max_attempts": read(values, "max_attempts", whole(1, 32767)),
    }
    if all(change is None for change in changes.values()):
        raise InvalidArgument("say what to change; nothing was changed")
    return _changed(values, queue.utils.reschedule_jobs([_id(values)], **changes), "Rescheduled")


def _cancel(queue: Queue, values: Values) -> str:
    id_ = _id(values)
    outcome = queue.utils.cancel_jobs([id_], text(values, "reason"))[id_]
    if outcome == "cancelled":
        return f"Cancelled job {id_}."
    if outcome == "cancelling":
        return f"The worker of job {id_} was told to stop it."
    raise GraphileWorkerError(f"job {id_} was not cancelled: {outcome.replace('_', ' ')}")


def _fail(queue: Queue, values: Values) -> str:
    reason = text(values, "reason")
    return _changed(values, queue.utils.permanently_fail_jobs([_id(values)], reason), "Failed")


def _complete(queue: Queue, values: Values) -> str:
    return _changed(values, queue.utils.complete_jobs([_id(values)]), "Completed")


def _discard(queue: Queue, values: Values) -> str:
    jobs = queue.utils.discard_jobs([_id(values)], text(values, "reason"))
    return _changed(values, jobs, "Discarded")


def _failed_ids(queue: Queue, values: Values) -> list[int]:
    filters = {name: text(values, name) for name in ("task", "queue", "error")}
    last = read(values, "last", whole(0, 2**63 - 1))
    return [row["id"] for row in queue.rows(_FAILED, **filters, last=last)]


def _asks_many(what: str) -> Says:
    def counted(queue: Queue, values: dict[str, str]) -> str:
        ids = _failed_ids(queue, values)
        values["last"] = str(ids[-1] if ids else 0)  # those that fail later were not shown
        parts = [
            f"{name} {values[name]!r}" for name in ("task", "queue", "error") if values.get(name)
        ]
        which = f" with {', '.join(parts)}" if parts else " (all)"
        return f"{many(len(ids), 'failed job')}{which} {what}."

    return counted


def _each(queue: Queue, values: Values, verb: Callable[[Sequence[int]], list[Job]]) -> int:
    ids = _failed_ids(queue, values)
    starts = range(0, len(ids), AT_ONCE)
    return sum(len(verb(ids[start : start + AT_ONCE])) for start in starts)


def _retry_many(queue: Queue, values: Values) -> str:
    utils = queue.utils
    done = _each(queue, values, lambda ids: retry(utils, ids))
    return f"Retried {many(done, 'job')}."


def _discard_many(queue: Queue, values: Values) -> str:
    reason = text(values, "reason")
    done = _each(queue, values, lambda ids: queue.utils.discard_jobs(ids, reason))
    return f"Discarded {many(done, 'job')}."


def _add(queue: Queue, values: Values) -> str:
    try:
        payload = json.loads(values.get("payload", "").strip() or "{}")
    except ValueError as error:
        raise InvalidArgument(f"the payload is no JSON: {error}; nothing was added") from error
    job = queue.utils.add_job(
        text(values, "task") or "", payload, queue_name=text(values, "queue"),
        run_at=read(values, "run_at", moment), job_key=text(values, "key"),
        priority=read(values, "priority", whole(-32768, 32767)),
        max_attempts=read(values, "max_attempts", whole(1, 32767)),
    )  # fmt: skip
    return f"Added job {job.id}."


_REASON = Field("reason", "Reason", "for people")
_RUN_AT = Field("run_at", "Run at", "10m from now, or 2030-01-31T08:00:00Z")
_PRIORITY = Field("priority", "Priority", "lower numbers run first")
_MOST = Field("max_attempts", "Attempts at most")

JOB_ACTIONS: dict[str, Action] = {
    "add": Action(
        "Add a job", "Add job", (), says("A job is added; it runs as soon as it is due."), _add,
        (
            Field("task", "Task", required=True),
            Field("payload", "Payload", "JSON; empty: {}", kind="area"),
            Field("queue", "Queue", "its jobs run one at a time"), _RUN_AT, _PRIORITY, _MOST,
            Field("key", "Key", "a waiting job with this key is replaced"),
        ),
    ),
    "retry": Action(
        "Retry a job", "Retry", ("id",), _one("will run now, with all its attempts"), _retry
    ),
    "run-now": Action("Run a job now", "Run now", ("id",), _one("will be due now"), _run_now),
    "reschedule": Action(
        "Reschedule a job", "Reschedule", ("id",), _one("will change as far as you say"),
        _reschedule, (_RUN_AT, _PRIORITY, _MOST),
    ),
    "cancel": Action(
        "Cancel a job", "Cancel job", ("id",),
        _one("will be deleted if it waits; if it runs, its worker is told to stop it"),
        _cancel, (_REASON,), True,
    ),
    "fail": Action(
        "Fail a job", "Fail", ("id",), _one("will fail permanently, without being run"), _fail,
        (_REASON,), True,
    ),
    "complete": Action(
        "Complete a job", "Complete", ("id",),
        _one("will be deleted as completed, without being run"), _complete, (), True,
    ),
    "discard": Action(
        "Discard a job", "Discard", ("id",), _one("will be deleted"), _discard, (_REASON,), True
    ),
    "retry-failed": Action(
        "Retry failed jobs", "Retry them", ("task", "queue", "error", "last"),
        _asks_many("will run now, with all attempts"), _retry_many,
    ),
    "discard-failed": Action(
        "Discard failed jobs", "Discard them", ("task", "queue", "error", "last"),
        _asks_many("will be deleted"), _discard_many, (_REASON,), True,
    ),
}  # fmt: skip
