"""gw history: the jobs that ended, and of which tasks history is kept."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, get_args

from graphile_worker.cli import flags, tables
from graphile_worker.cli.flags import Parser
from graphile_worker.cli.tables import Table
from graphile_worker.client import drivers
from graphile_worker.client.records import verbs
from graphile_worker.client.records.model import EndState, JobRecord
from graphile_worker.errors import GraphileWorkerError, InvalidHistory
from graphile_worker.gw.queue import Queue, connects, opened
from graphile_worker.gw.values import duration, job_id, plain, short, since, span, whole

ACTIONS = ("list", "keep", "stop", "settings")
NO_HISTORY = "no history is kept: see gw history keep"
_END = """
    select finished_at from {s}.job_history where job_id = %(job_id)s
    order by finished_at desc limit 1
"""


def configure(parser: Parser) -> None:
    """Add the flags of gw history."""
    connects(parser)
    parser.add_argument(
        "action", choices=ACTIONS, nargs="?", default="list",
        help="list ended jobs, the latest first (default); keep history, stop keeping it, or show"
        " of which tasks it is kept",
    )  # fmt: skip
    flags.env(parser, "--task", several=True, help="of this task; may be repeated by list")
    flags.env(
        parser, "--state", several=True, choices=get_args(EndState),
        help="list: that ended so; may be repeated",
    )  # fmt: skip
    flags.env(parser, "--before", type=job_id, help="list: that ended before this one did")
    flags.env(
        parser, "--limit", type=whole(1, 10000), default=100,
        help="list: the most jobs to show, 1 to 10000 (default 100)",
    )  # fmt: skip
    flags.env(
        parser, "--for", dest="keep", type=duration, default=timedelta(days=30),
        help="keep: for how long, such as 90d (default 30d)",
    )  # fmt: skip
    flags.env(parser, "--no-results", switch=True, help="keep: without what the tasks return")
    flags.env(parser, "--payloads", switch=True, help="keep: with the payloads")
    flags.env(
        parser, "--max-bytes", type=whole(0, 100_000_000), default=65536,
        help="keep: the largest result, and the longest error (default 65536)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Do what the action says."""
    if options.action in ("list", "settings") and not options.json:
        tables.needed()
    with opened(options) as queue, queue.limited():
        queue.need_records("keeps no history")
        return _ACTIONS[options.action](options, queue)


def ended_before(
    queue: Queue, job_id: int | None, tasks: Any, states: Any, limit: int
) -> list[JobRecord]:
    """Return jobs that ended, the latest first; given a job, only those that ended before it."""
    before = None
    if job_id is not None:
        ends = queue.rows(_END, job_id=job_id)
        if not ends:
            raise GraphileWorkerError(f"job {job_id} has not ended, or has no record")
        before = (ends[0]["finished_at"], job_id)
    verb = verbs.job_history(queue.utils._settings, tasks, states, before, limit)
    return drivers.run(queue.conn, verb)


def _list(options: argparse.Namespace, queue: Queue) -> int:
    found = ended_before(queue, options.before, options.task, options.state, options.limit)
    now = queue.now()
    columns = ("id", "state", "task", "queue", "ended", "took", "attempts", "worker", "error")
    rows = [
        (
            record.id, record.state, record.task_identifier, record.queue_name,
            since(record.finished_at, now), took(record.duration),
            f"{record.attempts}/{record.max_attempts}", record.worker_id, short(record.error),
        )
        for record in found
    ]  # fmt: skip
    nothing = "no job"
    if not found and not any(each.is_kept for each in queue.utils.histories()):
        nothing = NO_HISTORY
    table = Table(columns, rows, nothing=nothing)
    tables.show(options, [as_json(record) for record in found], lambda: [table])
    if len(found) == options.limit and not options.json:
        print(f"There may be more: --before {found[-1].id}, or a higher --limit")
    return 0


def _one_task(options: argparse.Namespace) -> str | None:
    if options.task and len(options.task) > 1:
        raise InvalidHistory(f"{options.action} takes one --task; nothing was changed")
    return options.task[0] if options.task else None


def _keep(options: argparse.Namespace, queue: Queue) -> int:
    task = _one_task(options)
    queue.utils.keep_history(
        task, keep=options.keep, results=not options.no_results, payloads=options.payloads,
        max_bytes=options.max_bytes,
    )  # fmt: skip
    what = "all tasks without a setting of their own" if task is None else f"task {plain(task)}"
    flags.out(
        options, {"task": task, "keep": options.keep.total_seconds()},
        f"Keeps the history of {what} for {span(options.keep)}.",
    )  # fmt: skip
    return 0


def _stop(options: argparse.Namespace, queue: Queue) -> int:
    task = _one_task(options)
    if not queue.utils.stop_history(task):
        raise GraphileWorkerError("no history was kept: `gw history settings` shows of which tasks")
    flags.out(options, {"stopped": True}, "Stopped; what is recorded stays for its time.")
    return 0


def _settings(options: argparse.Namespace, queue: Queue) -> int:
    found = queue.utils.histories()
    rows = [
        (
            each.task, "yes" if each.is_kept else "no", span(each.keep),
            "yes" if each.results else "no", "yes" if each.payloads else "no", each.max_bytes,
        )
        for each in found
    ]  # fmt: skip
    columns = ("task", "kept", "for", "results", "payloads", "max bytes")
    answer = [{**asdict(each), "keep": each.keep.total_seconds()} for each in found]
    tables.show(options, answer, lambda: [Table(columns, rows, nothing=NO_HISTORY)])
    return 0


_ACTIONS = {"list": _list, "keep": _keep, "stop": _stop, "settings": _settings}


def took(length: timedelta | None) -> str:
    """Return how long a job ran, for people."""
    if length is None:
        return ""
    seconds = length.total_seconds()
    return span(length) if seconds >= 10 else f"{seconds:.3f} s"


def as_json(record: JobRecord) -> dict[str, Any]:
    """Return a record as JSON has it."""
    found = {**asdict(record), "flags": sorted(record.flags)}
    if record.duration is not None:
        found["duration"] = record.duration.total_seconds()
    for attempt in found["attempt_log"]:
        _isoformat(attempt)
    return _isoformat(found)


def _isoformat(values: dict[str, Any]) -> dict[str, Any]:
    for name, value in values.items():
        if isinstance(value, datetime):
            values[name] = value.isoformat()
    return values
