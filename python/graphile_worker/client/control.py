"""The verbs that pause, limit, cancel and schedule, each once, without input or output."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Literal

from graphile_worker import errors
from graphile_worker.client.statements import statement
from graphile_worker.client.verbs import Settings, Verb, ids_of, when
from graphile_worker.job import Limit, Pause, Schedule, TaskSpec, check_run_at
from graphile_worker.payload import to_json

Scope = Literal["task", "queue"]
Overlap = Literal["allow", "skip", "replace"]


def pause(
    settings: Settings, scope: str, name: str | None, until: datetime | timedelta | None,
    reason: str | None,
) -> Verb[None]:  # fmt: skip
    """Pause a queue, a task or everything."""
    if until is not None:
        check_run_at(until)
    moment, delay = when(until)
    values = {"until": moment, "delay": delay, "reason": _text("reason", reason)}
    if scope != "all":
        values["name"] = _name(scope, name)
    yield statement(f"pause_{scope}", settings.schema), values


def resume(settings: Settings, scope: str, name: str | None) -> Verb[bool]:
    """Resume a queue, a task or everything."""
    values: dict[str, Any] = {} if scope == "all" else {"name": _name(scope, name)}
    ((resumed,),) = yield statement(f"resume_{scope}", settings.schema), values
    return bool(resumed)


def pauses(settings: Settings) -> Verb[list[Pause]]:
    """Read what is paused."""
    rows = yield statement("pauses", settings.schema), {}
    return [Pause(*row) for row in rows]


def set_limit(
    settings: Settings, scope: Scope, name: str, max_running: int | None, rate: int | None,
    per: timedelta | None, burst: int | None,
) -> Verb[None]:  # fmt: skip
    """Limit a task or queue."""
    if per is not None and not isinstance(per, timedelta):
        raise errors.InvalidControl(f"per is {per!r}: pass a timedelta")
    values: dict[str, Any] = {
        "scope": _text("scope", scope),
        "name": _name(scope, name),
        "per": when(per)[1],
        "max_running": max_running,
        "rate": rate,
        "burst": burst,
    }
    for what in ("max_running", "rate", "burst"):
        number = values[what]
        if number is not None and (type(number) is not int or abs(number) >= 2**31):
            raise errors.InvalidControl(f"{what} is {number!r}: pass a whole number")
    yield statement("set_limit", settings.schema), values


def remove_limit(settings: Settings, scope: Scope, name: str) -> Verb[bool]:
    """Remove a limit."""
    values = {"scope": _text("scope", scope), "name": _name(scope, name)}
    ((removed,),) = yield statement("remove_limit", settings.schema), values
    return bool(removed)


def limits(settings: Settings) -> Verb[list[Limit]]:
    """Read the limits."""
    rows = yield statement("limits", settings.schema), {}
    return [Limit(*row) for row in rows]


def cancel_jobs(
    settings: Settings, job_ids: Iterable[int], reason: str | None
) -> Verb[dict[int, str]]:
    """Cancel jobs."""
    values = {"job_ids": ids_of(job_ids), "reason": _text("reason", reason)}
    rows = yield statement("cancel_jobs", settings.schema), values
    outcomes: dict[int, str] = dict(map(tuple, rows))
    return outcomes


def schedule(
    settings: Settings, name: str, task: str, cron: str, tz: str, payload: Any,
    spec: TaskSpec, catch_up: timedelta, overlap: str,
) -> Verb[datetime | None]:  # fmt: skip
    """Set a schedule."""
    if not isinstance(catch_up, timedelta):
        raise errors.InvalidCrontab(f"catch_up is {catch_up!r}: pass a timedelta")
    values = {
        "name": _name("schedule", name),
        "task": _name("task", task),
        "cron": _name("cron expression", cron),
        "tz": _name("time zone", tz),
        "payload": to_json(payload, settings.dumps),
        "queue_name": spec.queue_name,
        "priority": spec.priority,
        "max_attempts": spec.max_attempts,
        "job_key": spec.job_key,
        "flags": None if spec.flags is None else list(spec.flags),
        "catch_up": when(catch_up)[1],
        "overlap": _text("overlap", overlap),
    }
    ((due,),) = yield statement("schedule", settings.schema), values
    found: datetime | None = due
    return found


def of_schedule(settings: Settings, verb: str, name: str) -> Verb[Any]:
    """End, pause, resume or run a schedule."""
    values = {"name": _name("schedule", name)}
    ((answer,),) = yield statement(verb, settings.schema), values
    return answer


def schedules(settings: Settings) -> Verb[list[Schedule]]:
    """Read the schedules."""
    rows = yield statement("schedules", settings.schema), {}
    return [
        Schedule(*(json.loads(value) if n == 4 else value for n, value in enumerate(row)))
        for row in rows
    ]


def _name(scope: str, name: object) -> str:
    text = _text(f"name of the {scope}", name)
    if text is None:
        raise errors.InvalidControl(f"name of the {scope} is None: pass a text")
    return text


def _text(what: str, value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or "\0" in value):
        raise errors.InvalidControl(f"{what} is {value!r}: pass a text without NUL characters")
    return value
