"""gw tasks: the schemas of payloads, from the code to the database."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from graphile_worker.cli import flags, tables
from graphile_worker.cli.flags import Parser
from graphile_worker.cli.tables import Table
from graphile_worker.errors import InvalidSchema
from graphile_worker.gw.queue import Queue, connects, opened
from graphile_worker.gw.values import many, plain, short

ACTIONS = ("publish", "list")
#: Unfit jobs that are shown for each task.
SHOWN = 20


def configure(parser: Parser) -> None:
    """Add the flags of gw tasks."""
    connects(parser)
    parser.add_argument(
        "action", choices=ACTIONS,
        help="publish the schemas of the tasks' payloads, as their functions' annotations tell;"
        " or list those that are set",
    )  # fmt: skip
    parser.add_argument(
        "sources", nargs="*", metavar="TASKS",
        help="publish: where the tasks are, such as app.tasks, as for gw run",
    )  # fmt: skip
    flags.env(
        parser, "--on-invalid", choices=("reject", "warn"), default="reject",
        help="publish: what add_job does with a payload that does not fit (default reject)",
    )  # fmt: skip
    flags.env(
        parser, "--check", switch=True,
        help="publish: change nothing; fail if the code and the database disagree",
    )  # fmt: skip
    flags.env(
        parser, "--against-backlog", switch=True,
        help="publish: name the waiting jobs that do not fit, and fail if there are any",
    )  # fmt: skip


@dataclass(frozen=True)
class _Task:
    """A task of the code, and what the database has of it."""

    name: str
    schema: dict[str, Any] | None
    before: dict[str, Any] | None
    on_invalid: str | None

    def differs(self, on_invalid: str) -> bool:
        return self.schema != self.before or (
            self.schema is not None and self.on_invalid != on_invalid
        )


def run(options: argparse.Namespace) -> int:
    """Do what the action says."""
    if options.action == "list":
        if options.sources:
            raise InvalidSchema("tasks list takes no TASKS")
        return _list(options)
    if not options.sources:
        raise InvalidSchema("tasks publish needs TASKS, such as app.tasks; nothing was changed")
    schemas = _derived(options.sources)
    with opened(options) as queue, queue.limited():
        queue.need_records("checks no payloads")
        found = {each.task: each for each in queue.utils.payload_schemas()}
        tasks = [
            _Task(
                name, schema, found[name].schema if name in found else None,
                found[name].on_invalid if name in found else None,
            )
            for name, schema in sorted(schemas.items())
        ]  # fmt: skip
        unfit = _unfit(queue, tasks) if options.against_backlog else {}
        changed = [task for task in tasks if task.differs(options.on_invalid)]
        if not options.check and not unfit:
            for task in changed:
                queue.utils.set_payload_schema(
                    task.name, task.schema, on_invalid=options.on_invalid
                )
    return _told(options, tasks, changed, unfit)


def _derived(sources: list[str]) -> dict[str, dict[str, Any] | None]:
    from graphile_worker.worker.executors.payload_schemas import payload_schema
    from graphile_worker.worker.task_loading import functions, load_source

    found = functions([load_source(text) for text in sources])
    return {name: payload_schema(name, function) for name, function in found.items()}


def _unfit(queue: Queue, tasks: list[_Task]) -> dict[str, list[tuple[int, str]]]:
    found = {}
    for task in tasks:
        if task.schema is not None:
            jobs = queue.utils.find_unfit_jobs(task.name, task.schema, limit=SHOWN)
            if jobs:
                found[task.name] = jobs
    return found


def _told(
    options: argparse.Namespace, tasks: list[_Task], changed: list[_Task],
    unfit: dict[str, list[tuple[int, str]]],
) -> int:  # fmt: skip
    from graphile_worker.worker.executors.payload_schemas import broken_by

    breaks = {
        task.name: broken_by(task.before, task.schema) if task.schema is not None else []
        for task in changed
    }
    failed = bool(unfit) or (options.check and bool(changed))
    lines = []
    for task in changed:
        kept = options.check or unfit
        said = "differs from the database" if kept else "published"
        if task.schema is None:
            said = "has no annotations any more" if kept else "no longer checked"
        lines.append(f"{plain(task.name)}: {said}")
        lines += [f"  refuses {plain(text)}" for text in breaks[task.name]]
    for name, jobs in unfit.items():
        lines.append(f"{plain(name)}: waiting jobs that do not fit; nothing was changed")
        lines += [f"  job {job}: {plain(problem)}" for job, problem in jobs]
        if len(jobs) == SHOWN:
            lines.append("  and maybe more")
    if not lines:
        lines = [f"{many(len(tasks), 'task')}: the database has the schemas of the code."]
    answer = {
        "changed": [task.name for task in changed],
        "refuses": breaks,
        "unfit": {name: [{"id": j, "problem": p} for j, p in jobs] for name, jobs in unfit.items()},
        "ok": not failed,
    }
    flags.out(options, answer, "\n".join(lines))
    return 1 if failed else 0


def _list(options: argparse.Namespace) -> int:
    if not options.json:
        tables.needed()
    with opened(options) as queue, queue.limited(read_only=True):
        queue.need_records("checks no payloads")
        found = queue.utils.payload_schemas()
    rows = [
        (
            each.task, each.on_invalid,
            short(", ".join(each.schema.get("properties", {}))) if isinstance(each.schema, dict)
            else "", each.set_by, each.set_at.isoformat(" ", "seconds"),
        )
        for each in found
    ]  # fmt: skip
    columns = ("task", "invalid ones", "properties", "set by", "at")
    answer = [
        {
            "task": each.task, "schema": each.schema, "on_invalid": each.on_invalid,
            "set_by": each.set_by, "set_at": each.set_at.isoformat(),
        }
        for each in found
    ]  # fmt: skip
    tables.show(options, answer, lambda: [Table(columns, rows, nothing="no schema is set")])
    return 0
