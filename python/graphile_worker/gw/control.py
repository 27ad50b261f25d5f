"""gw pause, resume, pauses, limit and limits: what may run, and how much of it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import datetime
from typing import Any

from graphile_worker.cli import flags, tables
from graphile_worker.cli.flags import Parser
from graphile_worker.cli.tables import Table
from graphile_worker.errors import GraphileWorkerError, InvalidControl
from graphile_worker.gw.queue import Queue, connects, opened
from graphile_worker.gw.values import duration, many, moment, plain, since, span, whole
from graphile_worker.job import Limit, Pause

SCOPES = ("queue", "task", "all")
_NAME = "its name; one that ends in an asterisk stands for all that begin so"
# Jobs that wait for what was named, to tell a name that is misspelled.
_WAITING = """
    select pg_catalog.count(*) as jobs from {s}.jobs
    where locked_at is null and attempts < max_attempts
    and case %(scope)s when 'task' then task_identifier when 'queue' then queue_name else '' end
      like %(pattern)s
"""
_STATES = "select * from {s}.limit_states order by scope, name"


def configure_pause(parser: Parser) -> None:
    """Add the flags of gw pause."""
    connects(parser)
    parser.add_argument("scope", choices=SCOPES, help="what to pause")
    parser.add_argument("name", nargs="?", metavar="NAME", help=_NAME)
    flags.env(parser, "--until", type=moment, help="when it ends: 10m (from now) or a time")
    flags.env(parser, "--reason", help="why, for people")


def configure_resume(parser: Parser) -> None:
    """Add the flags of gw resume."""
    connects(parser)
    parser.add_argument("scope", choices=SCOPES, help="what to resume")
    parser.add_argument("name", nargs="?", metavar="NAME", help="its name, as it was paused")


def configure_limit(parser: Parser) -> None:
    """Add the flags of gw limit."""
    connects(parser)
    parser.add_argument("scope", choices=("task", "queue"), help="what to limit")
    parser.add_argument("name", metavar="NAME", help=f"{_NAME}, each on its own")
    flags.env(parser, "--max-running", type=whole(1, 100_000), help="how many may run at once")
    flags.env(parser, "--rate", type=whole(1, 1_000_000), help="how many may start in --per")
    flags.env(parser, "--per", type=duration, help="the time for --rate, such as 1s or 1h")
    flags.env(
        parser, "--burst", type=whole(1, 1_000_000),
        help="how many may start together after a pause (default: those of 50 ms)",
    )  # fmt: skip
    parser.add_argument("--remove", action="store_true", help="remove the limit")


def _named(options: argparse.Namespace) -> tuple[str, str | None]:
    scope, name = options.scope, options.name
    if (scope == "all") != (name is None):
        wrong = "takes no name" if scope == "all" else "needs a name"
        raise InvalidControl(f"{options.command} {scope} {wrong}; nothing was changed")
    return scope, name


def _waiting(queue: Queue, scope: str, name: str | None) -> int:
    text = "" if name is None else name.removesuffix("*")
    escaped = text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
    pattern = "%" if name is None or name.endswith("*") else ""
    found: int = queue.row(_WAITING, scope=scope, pattern=escaped + pattern)["jobs"]
    return found


def run_pause(options: argparse.Namespace) -> int:
    """Pause a queue, a task or everything."""
    scope, name = _named(options)
    settings: dict[str, Any] = {"until": options.until, "reason": options.reason}
    with opened(options) as queue, queue.limited():
        if scope == "queue":
            queue.utils.pause_queue(str(name), **settings)
        elif scope == "task":
            queue.utils.pause_task(str(name), **settings)
        else:
            queue.utils.pause_all(**settings)
        (pause,) = (
            each for each in queue.utils.pauses() if (each.scope, each.name) == (scope, name or "*")
        )
        now, jobs = queue.now(), _waiting(queue, scope, name)
    what = "everything" if scope == "all" else f"the {scope} {plain(name)}"
    until = "until it is resumed" if pause.until is None else f"until {_time(pause.until, now)}"
    flags.out(
        options, {**_pause_json(pause), "waiting_jobs": jobs},
        f"Paused {what} {until}; {many(jobs, 'waiting job')}.",
    )  # fmt: skip
    return 0


def run_resume(options: argparse.Namespace) -> int:
    """Resume a queue, a task or everything."""
    scope, name = _named(options)
    with opened(options) as queue, queue.limited():
        if scope == "queue":
            resumed = queue.utils.resume_queue(str(name))
        elif scope == "task":
            resumed = queue.utils.resume_task(str(name))
        else:
            resumed = queue.utils.resume_all()
    if not resumed:
        what = "everything" if scope == "all" else f"the {scope} {plain(name)}"
        raise GraphileWorkerError(f"{what} was not paused by this name: `gw pauses` lists what is")
    flags.out(options, {"resumed": True}, "Resumed.")
    return 0


configure_pauses = configure_limits = connects


def run_pauses(options: argparse.Namespace) -> int:
    """Show what is paused."""
    if not options.json:
        tables.needed()
    with opened(options) as queue, queue.limited(read_only=True):
        found, now = queue.utils.pauses(), queue.now()
    rows = [
        (
            each.scope, each.name, since(each.paused_at, now), each.paused_by,
            "" if each.until is None else since(each.until, now), each.reason,
        )
        for each in found
    ]  # fmt: skip
    columns = ("scope", "name", "paused", "by", "ends", "reason")
    table = Table(columns, rows, nothing="nothing is paused")
    tables.show(options, [_pause_json(each) for each in found], lambda: [table])
    return 0


def run_limit(options: argparse.Namespace) -> int:
    """Set or remove a limit."""
    numbers = (options.max_running, options.rate, options.per, options.burst)
    if options.remove and any(number is not None for number in numbers):
        raise InvalidControl("--remove takes no numbers; nothing was changed")
    with opened(options) as queue, queue.limited():
        if options.remove:
            if not queue.utils.remove_limit(options.scope, options.name):
                raise GraphileWorkerError(
                    f"the {options.scope} {plain(options.name)} has no limit of its own:"
                    " `gw limits` lists those there are"
                )
            flags.out(options, {"removed": True}, "Removed.")
            return 0
        max_running, rate, per, burst = numbers
        queue.utils.set_limit(
            options.scope, options.name,
            max_running=max_running, rate=rate, per=per, burst=burst,
        )  # fmt: skip
        (limit,) = (
            each
            for each in queue.utils.limits()
            if (each.scope, each.name) == (options.scope, options.name)
        )
    flags.out(
        options, _limit_json(limit),
        f"Limited the {limit.scope} {plain(limit.name)}: {said(limit)}.",
    )  # fmt: skip
    return 0


def run_limits(options: argparse.Namespace) -> int:
    """Show the limits, and the tasks and queues that they hold for now."""
    if not options.json:
        tables.needed()
    with opened(options) as queue, queue.limited(read_only=True):
        limits, states, now = queue.utils.limits(), queue.rows(_STATES), queue.now()
    rows = [(each.scope, each.name, said(each), each.running) for each in limits]
    names = [
        (
            each["scope"], each["name"], each["limit_name"], each["running"], each["slots"],
            since(each["started_at"], now),
            since(each["next_start_at"], now) if each["next_start_at"] > now else "",
        )
        for each in states
    ]  # fmt: skip
    answer = {
        "limits": [_limit_json(each) for each in limits],
        "names": [
            {
                key: str(value) if isinstance(value, datetime) else value
                for key, value in each.items()
            }
            for each in states
        ],
    }
    tables.show(
        options, answer,
        lambda: [
            Table(("scope", "name", "limit", "running"), rows, nothing="no limit"),
            Table(
                ("scope", "name", "by limit", "running", "free", "last start", "next start"),
                names, title="\nTasks and queues with jobs of late", nothing="none",
            ),
        ][: 2 if names else 1],
    )  # fmt: skip
    return 0


def said(limit: Limit) -> str:
    parts = []
    if limit.max_running is not None:
        parts.append(f"{limit.max_running} at once")
    if limit.rate is not None and limit.per is not None:
        per = (
            f"{limit.per.total_seconds():g} s" if limit.per.total_seconds() < 1 else span(limit.per)
        )
        parts.append(f"{limit.rate} in {per}, {limit.burst} together")
    return "; ".join(parts)


def _pause_json(pause: Pause) -> dict[str, Any]:
    found = asdict(pause)
    return found | {
        name: found[name] and found[name].isoformat() for name in ("until", "paused_at")
    }


def _limit_json(limit: Limit) -> dict[str, Any]:
    return {**asdict(limit), "per": None if limit.per is None else limit.per.total_seconds()}


def _time(then: datetime, now: datetime) -> str:
    return f"{then.isoformat(' ', 'seconds')} ({since(then, now)})"
