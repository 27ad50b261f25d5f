"""gw schedule: the recurring jobs that the database keeps, and what is known of the others."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from graphile_worker.cli import flags, tables
from graphile_worker.cli.flags import Parser
from graphile_worker.cli.tables import Table
from graphile_worker.crontab import CronItem, parse_crontab
from graphile_worker.errors import GraphileWorkerError, InvalidCrontab
from graphile_worker.gw.queue import Queue, connects, opened
from graphile_worker.gw.values import duration, plain, since, whole
from graphile_worker.job import Schedule

ACTIONS = ("list", "set", "end", "pause", "resume", "run")
_KNOWN = "select * from {s}.crontabs order by identifier"


def configure(parser: Parser) -> None:
    """Add the flags of gw schedule."""
    connects(parser)
    parser.add_argument(
        "action", choices=ACTIONS,
        help="list them all, or set, end, pause or resume one, or run its job now",
    )  # fmt: skip
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of the schedule")
    parser.add_argument("task", nargs="?", metavar="TASK", help="set: task of its jobs")
    parser.add_argument(
        "cron", nargs="?", metavar="CRON",
        help="set: when, such as '30 9 * * MON-FRI' or @daily",
    )  # fmt: skip
    flags.env(parser, "--tz", default="UTC", help="set: time zone of CRON (default UTC)")
    flags.env(parser, "--payload", default="{}", help="set: payload of its jobs, a JSON object")
    flags.env(parser, "--queue", help="set: queue of its jobs")
    flags.env(parser, "--priority", type=whole(-32768, 32767), help="set: priority of its jobs")
    flags.env(parser, "--max-attempts", type=whole(1, 32767), help="set: attempts of its jobs")
    flags.env(parser, "--key", help="set: job key of its jobs")
    flags.env(
        parser, "--catch-up", type=duration, default=timedelta(),
        help="set: how old a missed run may be to be added later, such as 2d (default 0s)",
    )  # fmt: skip
    flags.env(
        parser, "--overlap", choices=("allow", "skip", "replace"), default="allow",
        help="set: what a run does whose predecessor has not ended (default allow)",
    )  # fmt: skip
    flags.env(parser, "--tasks", several=True, help="list: also those of a module of tasks")
    flags.env(parser, "--crontab", help="list: also those of this crontab file")


def run(options: argparse.Namespace) -> int:
    """Do what the action says."""
    if options.action == "list":
        return _list(options)
    if options.name is None:
        raise InvalidCrontab(f"schedule {options.action} needs a NAME; nothing was changed")
    if options.action != "set" and options.task is not None:
        raise InvalidCrontab(f"schedule {options.action} takes a NAME only; nothing was changed")
    with opened(options) as queue, queue.limited():
        return _ACTIONS[options.action](options, queue)


def _set(options: argparse.Namespace, queue: Queue) -> int:
    if options.cron is None:
        raise InvalidCrontab("schedule set needs NAME, TASK and CRON; nothing was changed")
    try:
        payload = json.loads(options.payload)
    except ValueError as error:
        raise InvalidCrontab(f"the payload is no JSON: {error}; nothing was changed") from error
    due = queue.utils.schedule(
        options.name, options.task, options.cron, tz=options.tz, payload=payload,
        queue_name=options.queue, priority=options.priority, max_attempts=options.max_attempts,
        job_key=options.key, catch_up=options.catch_up, overlap=options.overlap,
    )  # fmt: skip
    return _said(options, queue, f"Set the schedule {plain(options.name)}", due)


def _resume(options: argparse.Namespace, queue: Queue) -> int:
    due = queue.utils.resume_schedule(options.name)
    return _said(options, queue, f"Resumed the schedule {plain(options.name)}", due)


def _said(options: argparse.Namespace, queue: Queue, what: str, due: datetime | None) -> int:
    when = (
        "never due"
        if due is None
        else f"due next at {due.isoformat(' ', 'seconds')} ({since(due, queue.now())})"
    )
    flags.out(options, {"next_run": due and due.isoformat()}, f"{what}; it is {when}.")
    return 0


def _end(options: argparse.Namespace, queue: Queue) -> int:
    if not queue.utils.unschedule(options.name):
        raise GraphileWorkerError(
            f"there is no schedule {plain(options.name)}: `gw schedule list` shows those there are"
        )
    flags.out(options, {"ended": True}, "Ended; the jobs that it has added stay.")
    return 0


def _pause(options: argparse.Namespace, queue: Queue) -> int:
    queue.utils.pause_schedule(options.name)
    flags.out(options, {"paused": True}, "Paused; its runs are left out until it is resumed.")
    return 0


def _run_now(options: argparse.Namespace, queue: Queue) -> int:
    job = queue.utils.run_schedule_now(options.name)
    if job is None:
        raise GraphileWorkerError(
            "nothing was added: its overlap is skip, and the job of the last run has not ended"
        )
    flags.out(options, {"job_id": job}, f"Added job {job}.")
    return 0


_ACTIONS = {"set": _set, "end": _end, "pause": _pause, "resume": _resume, "run": _run_now}


def _list(options: argparse.Namespace) -> int:
    if options.name is not None:
        raise InvalidCrontab("schedule list takes no NAME")
    if not options.json:
        tables.needed()
    items = list(_items(options))
    with opened(options) as queue, queue.limited(read_only=True):
        schedules, now = queue.utils.schedules(), queue.now()
        known = {row["identifier"]: row for row in queue.rows(_KNOWN)}
    entries = [_of_schedule(each) for each in schedules]
    entries += [_of_item(kind, item, known.pop(item.identifier, None), now) for kind, item in items]
    entries += [_of_known(row) for row in known.values()]
    rows = [
        (
            entry["name"], entry["kind"], entry["task"], entry["cron"], entry["tz"], entry["state"],
            since(entry["last_run_at"], now) if entry["last_run_at"] else "", entry["last_job_id"],
            ", ".join(_shown(each, now) for each in entry["next_runs"]),
        )
        for entry in entries
    ]  # fmt: skip
    columns = ("name", "from", "task", "cron", "tz", "state", "last run", "job", "next runs")
    answer = [
        {
            **entry,
            "last_run_at": entry["last_run_at"] and entry["last_run_at"].isoformat(),
            "next_runs": [each.isoformat() for each in entry["next_runs"]],
        }
        for entry in entries
    ]
    tables.show(options, answer, lambda: [Table(columns, rows, nothing="no schedule")])
    return 0


def _shown(run: datetime, now: datetime) -> str:
    return f"{run.astimezone(UTC):%Y-%m-%d %H:%M}Z" if run - now > timedelta(days=1) else (
        f"{run.astimezone(UTC):%H:%M}Z"
    )  # fmt: skip


def _items(options: argparse.Namespace) -> Iterable[tuple[str, CronItem]]:
    if options.crontab:
        path = Path(options.crontab)
        try:
            text = path.read_text()
        except OSError as error:
            raise InvalidCrontab(f"crontab {path} cannot be read: {error.strerror}") from error
        yield from (("crontab", item) for item in parse_crontab(text))
    if options.tasks:
        from graphile_worker.worker.executors.call import Executors
        from graphile_worker.worker.task_loading import load_source, load_tasks

        sources = [load_source(text) for text in options.tasks]
        for task in load_tasks(sources, Executors()).values():
            yield from (("tasks", item) for item in task.crontab)


def _of_schedule(schedule: Schedule) -> dict[str, Any]:
    state = "paused" if schedule.is_paused else "failed" if schedule.last_error else "active"
    shown = asdict(schedule)
    names = ("name", "task", "cron", "tz", "last_run_at", "last_job_id", "last_error")
    return {
        "kind": "database", "state": state, **{name: shown[name] for name in names},
        "next_runs": schedule.next_runs,
    }  # fmt: skip


def _of_item(
    kind: str, item: CronItem, known: dict[str, Any] | None, now: datetime
) -> dict[str, Any]:
    ticks = item.ticks(now, now + timedelta(days=9 * 366))
    return {
        "name": item.identifier, "kind": kind, "task": item.task, "cron": None,
        "tz": str(item.tz or "UTC"), "state": "new" if known is None else "active",
        "last_run_at": known and known["last_execution"], "last_job_id": None, "last_error": None,
        "next_runs": [tick for _, tick in zip(range(3), ticks, strict=False)],
    }  # fmt: skip


def _of_known(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": row["identifier"], "kind": "a worker", "task": None, "cron": None, "tz": None,
        "state": "known", "last_run_at": row["last_execution"], "last_job_id": None,
        "last_error": None, "next_runs": [],
    }  # fmt: skip
