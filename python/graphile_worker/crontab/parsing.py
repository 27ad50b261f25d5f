"""Read Node's crontab format, and make items in Python."""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from itertools import product
from typing import Any
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

from graphile_worker.crontab.item import DAY, CronItem
from graphile_worker.errors import InvalidArgument, InvalidCrontab, InvalidPayload
from graphile_worker.job import JobKeyMode, JobSpec
from graphile_worker.payload import to_json

logger = logging.getLogger("graphile_worker")

#: How many days the months have at most.
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_FIELDS = (
    ("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12),
    ("day of the week", 0, 7),
)  # fmt: skip


def cron_item(
    expression: str,
    task: str,
    *,
    id: str | None = None,  # noqa: A002 - as in a crontab
    fill: str | timedelta | None = None,
    payload: Mapping[str, Any] | None = None,
    tz: str | ZoneInfo | None = None,
    max_attempts: int | None = None,
    queue_name: str | None = None,
    priority: int | None = None,
    job_key: str | None = None,
    job_key_mode: JobKeyMode | None = None,
    flags: Iterable[str] | None = None,
) -> CronItem:
    """Return a recurring job for the ``crontab`` of a worker.

    >>> cron_item("0 4 * * 1", "report", fill="2d", tz="Europe/London", payload={"kind": "weekly"})

    The expression is minute, hour, day of the month, month and day of the week. ``fill`` says how
    far back missed ticks are added: a timedelta, or a time phrase such as ``2d12h``. ``id`` is the
    name under which the database knows the item, by default the task's; ``tz`` by default UTC.
    Raise InvalidCrontab, or what JobSpec raises for the other options.
    """
    fields = expression.split()
    if len(fields) != 5:
        raise InvalidCrontab(
            f"schedule {expression!r} has {len(fields)} fields: write five, which are minute, hour,"
            " day of the month, month and day of the week, such as '0 4 * * 1'"
        )
    minutes, hours, days, months, weekdays = map(_numbers, fields, _FIELDS)
    # A JobSpec knows what a job may be.
    spec = JobSpec(
        task, max_attempts=max_attempts, queue_name=queue_name, priority=priority, job_key=job_key,
        job_key_mode=job_key_mode, flags=flags,
    )  # fmt: skip
    identifier = task if id is None else id
    for what, text, most in (
        ("task", task, 128), ("id", identifier, None), ("queue name", queue_name, 128),
        ("job key", job_key, 512),
    ):  # fmt: skip
        if text is not None and not (
            isinstance(text, str) and 0 < len(text) <= (most or len(text))
        ):
            raise InvalidCrontab(
                f"{what} is {text!r}: pass 1 to {most or 'any number of'} characters"
            )
    if job_key_mode not in (None, "replace", "preserve_run_at", "unsafe_dedupe"):
        raise InvalidCrontab(
            f"job key mode is {job_key_mode!r}: use replace, preserve_run_at or unsafe_dedupe"
        )
    if payload is not None and not isinstance(payload, Mapping):
        raise InvalidCrontab(f"payload is {payload!r:.80}: pass a dict")
    if len({day % 7 for day in weekdays}) == 7 and all(
        day > _DAYS[month - 1] for day, month in product(days, months)
    ):
        logger.warning(
            "crontab %s never fires: none of the months %s has a day %s",
            identifier, ", ".join(map(str, sorted(months))), ", ".join(map(str, sorted(days))),
        )  # fmt: skip
    return CronItem(
        task=task, minutes=minutes, hours=hours, days=days, months=months,
        weekdays=frozenset(day % 7 for day in weekdays), identifier=identifier, fill=_period(fill),
        max_attempts=max_attempts, queue_name=queue_name, job_key=job_key,
        job_key_mode=job_key_mode, priority=priority,
        flags=None if spec.flags is None else tuple(spec.flags),
        payload=None if payload is None else json.loads(to_json(dict(payload)) or "{}"),
        tz=_zone(tz),
    )  # fmt: skip


def check_identifiers(items: Iterable[CronItem]) -> None:
    """Raise InvalidCrontab where two items have one identifier: only one of them would be added."""
    seen: dict[str, CronItem] = {}
    for item in items:
        if item.identifier in seen:
            raise InvalidCrontab(
                f"crontab identifier {item.identifier!r} is already used by the task"
                f" {seen[item.identifier].task!r}: give one of them an id of its own, such as"
                f" {item.identifier + '_2'!r}"
            )
        seen[item.identifier] = item


def check_payload(task: str, function: Callable[..., Any], payload: Mapping[str, Any]) -> None:
    """Raise InvalidPayload for a payload with which a worker could never call the function."""
    parameters = inspect.signature(function).parameters.values()
    named = {each.name: each for each in parameters if each.kind not in _STARRED}
    missing = [
        each.name
        for each in named.values()
        if each.default is each.empty
        and each.name not in (*payload, "_cron")
        and "Context" not in str(each.annotation)  # which the worker passes
    ]
    if missing:
        raise InvalidPayload(
            f"task {task!r} needs {', '.join(missing)}: say payload={{{missing[0]!r}: ...}}"
        )
    unknown = [name for name in payload if name not in named]
    if unknown and not any(each.kind is each.VAR_KEYWORD for each in parameters):
        raise InvalidPayload(f"task {task!r} has no parameter {', '.join(unknown)}: leave it out")


_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_LINE = re.compile(r"(?P<when>\S+(?:\s+\S+){4})\s+(?P<command>[^\s0-9*].*)")
_COMMAND = re.compile(
    r"(?P<task>[_a-zA-Z][_a-zA-Z0-9:/-]*)(?:\s+\?(?P<options>\S+))?(?:\s+(?P<payload>\{.*\}))?"
)
#: Name in a crontab: argument of cron_item, what is allowed, and how to say that.
_OPTIONS = {
    "id": ("id", r"[_a-zA-Z][_a-zA-Z0-9-]*", "a letter or _, then letters, digits, _ and -"),
    "fill": ("fill", r"([0-9]{1,12}[smhdw])+", "a time phrase such as 4w3d2h1m5s"),
    "max": ("max_attempts", r"[0-9]{1,12}", "a whole number from 1 to 32767"),
    "queue": ("queue_name", r"[_a-zA-Z0-9:-]+", "letters, digits, _, : and -"),
    "jobKey": ("job_key", r".+", "a key, percent-encoded"),
    "jobKeyMode": ("job_key_mode", r"replace|preserve_run_at", "replace or preserve_run_at"),
    "priority": ("priority", r"-?[0-9]{1,12}", "a whole number from -32768 to 32767"),
    "tz": ("tz", r".+", "a time zone such as Europe/London"),
}  # fmt: skip


def parse_crontab(text: str) -> list[CronItem]:
    """Return the items of a crontab in Node's format, with the option ``tz`` added.

    >>> parse_crontab("30 4 * * 1 send_weekly_email ?fill=2d&max=10 {onboarding: false}")

    Raise InvalidCrontab, which names the line, for what is wrong or would never be told apart.
    """
    items: dict[int, CronItem] = {}
    for number, line in enumerate(re.split(r"\r?\n", text.removeprefix("\ufeff")), 1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        try:
            items[number] = _parse_line(line.strip())
            check_identifiers(items.values())
        except InvalidArgument as error:
            raise InvalidCrontab(f"crontab line {number}: {error}") from error
    return list(items.values())


def _parse_line(line: str) -> CronItem:
    found = _LINE.fullmatch(line)
    if found is None:
        raise InvalidCrontab(
            f"{line!r} is not a schedule with a task: write minute, hour, day of the month,"
            " month, day"
            " of the week and the task, such as '0 4 * * 1 report'"
        )
    command = _COMMAND.fullmatch(found["command"])
    if command is None:
        raise InvalidCrontab(
            f"{found['command']!r} is not a command: write a task (a letter or _, then letters,"
            " digits, _, :, / and -), then perhaps ?options without spaces, perhaps a {payload}"
            " up to the end of the line"
        )
    options: dict[str, Any] = {}
    for name, value in parse_qsl(command["options"] or "", keep_blank_values=True):
        if name not in _OPTIONS:
            raise InvalidCrontab(f"option {name!r} is unknown: use {', '.join(_OPTIONS)}")
        argument, allowed, advice = _OPTIONS[name]
        if argument in options:
            raise InvalidCrontab(f"option {name!r} is given twice: leave one of them out")
        if not re.fullmatch(allowed, value):
            raise InvalidCrontab(f"option {name!r} is {value!r}: use {advice}")
        options[argument] = int(value) if argument in ("max_attempts", "priority") else value
    payload = None if command["payload"] is None else _json5(command["payload"])
    return cron_item(found["when"], command["task"], payload=payload, **options)


def _json5(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        import json5
    except ImportError as error:
        raise InvalidCrontab(
            f"payload {text!r} is not JSON, and JSON5 needs a library:"
            " pip install 'graphile-worker[worker]'"
        ) from error
    try:
        return json5.loads(text)
    except ValueError as error:
        raise InvalidCrontab(f"payload {text!r} is not a JSON5 object: {error}") from error


def _numbers(text: str, field: tuple[str, int, int]) -> frozenset[int]:
    """Return the numbers that a field of a schedule stands for."""
    name, low, high = field
    numbers: set[int] = set()
    for part in text.split(","):
        if part == "*":
            numbers.update(range(low, high + 1))
        elif step := re.fullmatch(r"\*/([0-9]{1,12})", part):
            if int(step[1]) == 0:
                raise InvalidCrontab(f"{name} {part!r} has a step of 0: use 1 or more")
            numbers.update(range(low, high + 1, int(step[1])))
        elif ends := re.fullmatch(r"([0-9]{1,12})(?:-([0-9]{1,12}))?", part):
            first, last = int(ends[1]), int(ends[2] or ends[1])
            if not low <= first <= last <= high or (ends[2] and first == last):
                raise InvalidCrontab(
                    f"{name} {part!r} is out of range: use {low} to {high}, ranges with the lower"
                    " number first"
                )
            numbers.update(range(first, last + 1))
        else:
            raise InvalidCrontab(
                f"{name} {part!r} is neither a number nor a range such as 1-5, nor * or */5: names"
                " and steps in a range are not known here; write numbers, with commas in between"
            )
    return frozenset(numbers)


def _period(fill: object) -> timedelta:
    """Return what a time phrase stands for."""
    if fill is None:
        return timedelta(0)
    if isinstance(fill, str) and re.fullmatch(_OPTIONS["fill"][1], fill):
        units = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
        seconds = sum(int(n) * units[unit] for n, unit in re.findall(r"([0-9]+)(.)", fill))
        if seconds <= 36500 * 86400:
            return timedelta(seconds=seconds)
    elif isinstance(fill, timedelta) and timedelta(0) <= fill <= 36500 * DAY:
        return fill
    raise InvalidCrontab(
        f"fill is {fill!r}: use a timedelta or {_OPTIONS['fill'][2]}, of a hundred years at most"
    )


def _zone(tz: object) -> ZoneInfo | None:
    if tz is None or isinstance(tz, ZoneInfo):
        return tz
    try:
        if isinstance(tz, str):
            return ZoneInfo(tz)
    except (KeyError, ValueError, OSError):
        pass
    raise InvalidCrontab(
        f"time zone {tz!r} is unknown: use a name such as 'Europe/London'; a system without any"
        " needs `pip install tzdata`"
    )
