"""The verbs that pause, limit and cancel, each once, without input or output: see verbs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Literal

from graphile_worker import errors
from graphile_worker.client.statements import statement
from graphile_worker.client.verbs import Settings, Verb, ids_of, when
from graphile_worker.job import Limit, Pause, check_run_at

Scope = Literal["task", "queue"]


def pause(
    settings: Settings, scope: str, name: str | None, until: datetime | timedelta | None,
    reason: str | None,
) -> Verb[None]:  # fmt: skip
    """Pause a queue, a task or everything."""
    if until is not None:
        check_run_at(until)
    moment, delay = when(until)
    values = {"until": moment, "delay": delay, "reason": _text("reason", reason)}
    if name is not None:
        values["name"] = _name(scope, name)
    yield statement(f"pause_{scope}", settings.schema), values


def resume(settings: Settings, scope: str, name: str | None) -> Verb[bool]:
    """Resume a queue, a task or everything."""
    values: dict[str, Any] = {} if name is None else {"name": _name(scope, name)}
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


def _name(scope: str, name: object) -> str:
    text = _text(f"name of the {scope}", name)
    if text is None:
        raise errors.InvalidControl(f"name of the {scope} is None: pass a text")
    return text


def _text(what: str, value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or "\0" in value):
        raise errors.InvalidControl(f"{what} is {value!r}: pass a text without NUL characters")
    return value
