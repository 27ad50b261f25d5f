"""gw import: move the waiting jobs of another queue in this database here, in one transaction."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import psycopg

from graphile_worker.cli import flags, progress
from graphile_worker.cli.flags import Parser
from graphile_worker.errors import GraphileWorkerError, InvalidArgument
from graphile_worker.gw.importing.sources import SOURCES, Source
from graphile_worker.gw.queue import Queue, Row, agreed, connects, opened
from graphile_worker.gw.values import many, plain
from graphile_worker.naming import quote_ident

#: Before the name of a queue, in the flag of a job that another queue routed.
QUEUE_FLAG = "queue:"

# The jobs are added one by one, in the order in which the other queue would have run them.
_MOVE = """
    with waiting as materialized ({waiting}),
    added as (
      select ordered.task, {s}.add_job(
        coalesce(%(names)s::jsonb ->> ordered.task, ordered.task),
        payload => ordered.payload, queue_name => ordered.queue_name,
        run_at => ordered.run_at, max_attempts => ordered.max_attempts,
        job_key => ordered.job_key, priority => ordered.priority,
        flags => case when ordered.flag is not null then array[%(prefix)s || ordered.flag] end
      ) as job
      from (select * from waiting order by place) as ordered
    )
    select task, pg_catalog.count(*) as jobs,
      pg_catalog.count(distinct (job).id) filter (where (job).revision = 0) as ids
    from added group by task order by jobs desc, task
"""
_SCHEDULE = """
    with waiting as materialized ({waiting})
    select waiting.name, {s}.schedule(
      waiting.name, coalesce(%(names)s::jsonb ->> waiting.task, waiting.task), waiting.cron,
      waiting.tz, coalesce(waiting.payload, '{}'::json)
    ) from waiting order by waiting.name
"""


class _UndoError(Exception):
    """With --dry-run: what was done is undone."""


@dataclass(frozen=True)
class Moved:
    """How many jobs were moved by their old task, which schedules, and what was left by state."""

    jobs: dict[str, int]
    schedules: list[str]
    left: dict[str, int]


def configure(parser: Parser) -> None:
    """Add the flags of gw import."""
    connects(parser)
    parser.add_argument("system", choices=list(SOURCES), help="the other queue")
    flags.env(parser, "--from", dest="source", help="its schema (default: the one it usually has)")
    parser.add_argument(
        "--task", action="append", help="only this task, as it is named there; may be repeated"
    )
    parser.add_argument(
        "--name", action="append", default=[], metavar="OLD=NEW",
        help="how a task is named here (default: as there); may be repeated",
    )  # fmt: skip
    flags.dry_run(parser, "say what would be moved, change nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask before moving jobs")


def run(options: argparse.Namespace) -> int:
    """Move the jobs after a confirmation, and tell how many."""
    source = SOURCES[options.system]
    schema = options.source or source.schema
    names = _names(options.name)
    with opened(options) as queue:
        if source.schedules:
            queue.need_records("has no schedules in the database")
        with queue.limited(read_only=True):
            count = _counted(queue, source, schema, options.task)[0]
        if not options.dry_run:
            agreed(options, f"{many(count, 'waiting job')} of {source.name}: move them here")
        with progress.bar(f"import of {count}"):
            found = _moved(queue, source, schema, options, names)
    would = "Would move" if options.dry_run else "Moved"
    lines = [f"{would} {many(sum(found.jobs.values()), 'job')} of {source.name}."]
    lines += [f"  {plain(task)}{_new(task, names)}: {n}" for task, n in found.jobs.items()]
    if found.schedules:
        shown = ", ".join(plain(name) for name in found.schedules)
        lines.append(f"{would} {many(len(found.schedules), 'schedule')}: {shown}.")
    if found.left:
        shown = ", ".join(f"{n} {state}" for state, n in found.left.items())
        lines.append(f"Left there: {shown}.")
    answer = {"jobs": found.jobs, "schedules": found.schedules, "left": found.left}
    flags.out(options, answer, "\n".join(lines))
    return 0


def _names(pairs: list[str]) -> dict[str, str]:
    names = dict[str, str]()
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not (old and equals and new) or old in names:
            raise InvalidArgument(
                f"--name {pair!r} does not fit: use OLD=NEW, each OLD once; nothing was moved"
            )
        names[old] = new
    return names


def _new(task: str, names: dict[str, str]) -> str:
    return f" as {plain(names[task])}" if task in names else ""


def _filled(source: Source, schema: str, text: str) -> str:
    ident = quote_ident(schema).replace("%", "%%")
    return text.replace("{from}", ident).replace("{only}", "%(only)s")


def _counted(
    queue: Queue, source: Source, schema: str, only: list[str] | None
) -> tuple[int, dict[str, int]]:
    """Return how many jobs wait, and how many are in each of the other states."""
    try:
        rows = queue.rows(_filled(source, schema, source.states), only=only)
    except (
        psycopg.errors.UndefinedTable,
        psycopg.errors.UndefinedColumn,
        psycopg.errors.InvalidSchemaName,
    ) as error:
        raise GraphileWorkerError(
            f"the schema {schema} of this database has no {source.name} as it is known here"
            f" ({str(error).splitlines()[0]}): say where it is, --from SCHEMA; nothing was moved"
        ) from error
    left = Counter[str]()
    for row in rows:
        if not row["is_waiting"]:
            left[row["state"]] += row["jobs"]
    return sum(row["jobs"] for row in rows if row["is_waiting"]), dict(left)


def _moved(
    queue: Queue, source: Source, schema: str, options: argparse.Namespace, names: dict[str, str]
) -> Moved:
    found: Moved | None = None
    values: dict[str, Any] = {"only": options.task, "names": json.dumps(names)}
    try:
        with queue.limited():
            # What is deleted there is added here: that takes as long as it takes.
            queue.conn.execute("set local statement_timeout = 0")
            # Its triggers find its tables by their bare names.
            path = f"set local search_path = pg_catalog, {quote_ident(schema)}, pg_temp"
            queue.conn.execute(path.encode())
            move = _MOVE.replace("{waiting}", _filled(source, schema, source.waiting))
            rows = queue.rows(move, prefix=QUEUE_FLAG, **values)
            _check_distinct(rows)
            schedules = []
            if source.schedules:
                text = _filled(source, schema, source.schedules)
                schedules = _scheduled(queue, text, values)
            _, left = _counted(queue, source, schema, options.task)
            found = Moved({row["task"]: row["jobs"] for row in rows}, schedules, left)
            if options.dry_run:
                raise _UndoError
    except _UndoError:
        pass
    assert found is not None
    return found


def _check_distinct(rows: list[Row]) -> None:
    """Raise if a key of one job was that of another, which it would have replaced."""
    for row in rows:
        if row["ids"] != row["jobs"]:
            raise GraphileWorkerError(
                f"{row['jobs'] - row['ids']} jobs of task {row['task']} have a key that another"
                " job has, here or there, and would replace it: run or remove one of them first;"
                " nothing was moved"
            )


def _scheduled(queue: Queue, waiting: str, values: dict[str, Any]) -> list[str]:
    before = {row["name"] for row in queue.rows("select name from {s}.schedules")}
    text = _SCHEDULE.replace("{waiting}", waiting)
    names = [str(row["name"]) for row in queue.rows(text, **values)]
    for name in names:
        if name in before:
            raise GraphileWorkerError(
                f"there is a schedule {name!r} here: rename or remove it first, `gw schedule end"
                f" {name}`; nothing was moved"
            )
    return names
