"""gw failed: the jobs that failed for good, and what is done about them."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from graphile_worker.cli import flags, tables
from graphile_worker.cli.flags import Parser
from graphile_worker.cli.tables import Table
from graphile_worker.errors import InvalidHistory
from graphile_worker.gw.queue import Queue, connects, opened
from graphile_worker.gw.records.history import as_json
from graphile_worker.gw.values import duration, job_id, plain, short, since, span, whole

ACTIONS = ("list", "notify", "keep", "settings")
_FAILED = """
    select id, task_identifier, queue_name, key, attempts, max_attempts, failed_at, last_error
    from {s}.failed_jobs
    where (%(tasks)s::text[] is null or task_identifier = any (%(tasks)s::text[]))
    and (%(queues)s::text[] is null or queue_name = any (%(queues)s::text[]))
    and (%(error)s::text is null
      or pg_catalog.strpos(pg_catalog.lower(last_error), pg_catalog.lower(%(error)s::text)) > 0)
    and id > %(after)s
    order by id
    limit %(limit)s
"""
_LETTERS = "select failed_task, task from {s}.dead_letters order by failed_task"
_LACKS = "has no records of failed jobs"
#: Jobs that are exported in one statement.
AT_ONCE = 500


def configure(parser: Parser) -> None:
    """Add the flags of gw failed."""
    connects(parser)
    parser.add_argument(
        "action", choices=ACTIONS, nargs="?", default="list",
        help="list them (default); set the task that is notified of them, or how long they are"
        " kept; or show what is set",
    )  # fmt: skip
    parser.add_argument(
        "value", nargs="?", metavar="VALUE",
        help="notify: the task of which a job is added, or none; keep: how long, such as 90d, or"
        " forever",
    )  # fmt: skip
    _filters(parser)
    flags.env(
        parser, "--limit", type=whole(1, 10000), default=100,
        help="list: the most jobs to show, 1 to 10000 (default 100)",
    )  # fmt: skip


def configure_export(parser: Parser) -> None:
    """Add the flags of gw export."""
    connects(parser)
    _filters(parser)


def _filters(parser: Parser) -> None:
    flags.env(parser, "--task", several=True, help="of this task; may be repeated")
    flags.env(parser, "--queue", several=True, help="in this queue; may be repeated")
    flags.env(parser, "--error", help="whose last error contains this text")
    flags.env(parser, "--after", type=job_id, help="only jobs with a higher id")


def run(options: argparse.Namespace) -> int:
    """Do what the action says."""
    if options.action in ("list", "settings") and not options.json:
        tables.needed()
    if (options.value is None) == (options.action in ("notify", "keep")):
        wrong = "needs a VALUE" if options.value is None else "takes no VALUE"
        raise InvalidHistory(f"failed {options.action} {wrong}; nothing was changed")
    with opened(options) as queue, queue.limited():
        queue.need_records(_LACKS)
        return _ACTIONS[options.action](options, queue)


def _found(options: argparse.Namespace, queue: Queue, after: int, limit: int) -> list[Any]:
    return queue.rows(
        _FAILED, tasks=options.task, queues=options.queue, error=options.error, after=after,
        limit=limit,
    )  # fmt: skip


def _list(options: argparse.Namespace, queue: Queue) -> int:
    found = _found(options, queue, options.after or 0, options.limit)
    now = queue.now()
    columns = ("id", "task", "queue", "key", "attempts", "failed", "error")
    rows = [
        (
            row["id"], row["task_identifier"], row["queue_name"], row["key"],
            f"{row['attempts']}/{row['max_attempts']}", since(row["failed_at"], now),
            short(row["last_error"]),
        )
        for row in found
    ]  # fmt: skip
    answer = [{**row, "failed_at": row["failed_at"].isoformat()} for row in found]
    tables.show(options, answer, lambda: [Table(columns, rows, nothing="no failed job")])
    if len(found) == options.limit and not options.json:
        print(f"There may be more: --after {found[-1]['id']}, or a higher --limit")
    return 0


def run_export(options: argparse.Namespace) -> int:
    """Print failed jobs with payloads and attempts, a line of JSON each."""
    after, count = options.after or 0, 0
    with opened(options) as queue:
        queue.need_records(_LACKS)
        while True:
            with queue.limited(read_only=True):
                rows = _found(options, queue, after, AT_ONCE)
                for row in rows:
                    record = queue.utils.find_job(row["id"])
                    if record is not None and record.state == "failed":
                        print(json.dumps(as_json(record), ensure_ascii=False))
                        count += 1
            if len(rows) < AT_ONCE:
                break
            after = rows[-1]["id"]
    print(f"{options.prog}: exported {count} failed jobs", file=sys.stderr)
    return 0


def _notify(options: argparse.Namespace, queue: Queue) -> int:
    if options.task and len(options.task) > 1:
        raise InvalidHistory("notify takes one --task; nothing was changed")
    failed = options.task[0] if options.task else None
    task = None if options.value == "none" else options.value
    before = queue.utils.on_dead_letter(task, failed)
    of = "any task" if failed is None else f"task {plain(failed)}"
    said = "no job is added" if task is None else f"a job of task {plain(task)} is added"
    flags.out(
        options, {"task": task, "failed_task": failed, "before": before},
        f"When a job of {of} fails permanently, {said}.",
    )  # fmt: skip
    return 0


def _keep(options: argparse.Namespace, queue: Queue) -> int:
    try:
        keep = None if options.value == "forever" else duration(options.value)
    except argparse.ArgumentTypeError as error:
        raise InvalidHistory(f"{error}; nothing was changed") from error
    before = queue.utils.keep_failed_jobs(keep)
    text = "Failed jobs are kept until you delete them."
    if keep is not None:
        text = f"Workers delete failed jobs {span(keep)} after they failed, once an hour."
    flags.out(
        options,
        {
            "keep": None if keep is None else keep.total_seconds(),
            "before": None if before is None else before.total_seconds(),
        },
        text,
    )
    return 0


def _settings(options: argparse.Namespace, queue: Queue) -> int:
    found = queue.rows(_LETTERS)
    rows = [(row["failed_task"], row["task"]) for row in found]
    table = Table(("failed task", "task of the job added"), rows, nothing="no job is added")
    tables.show(options, found, lambda: [table])
    return 0


_ACTIONS = {"list": _list, "notify": _notify, "keep": _keep, "settings": _settings}
