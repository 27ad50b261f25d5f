"""What the screen of gw top shows: tables of the queue's numbers, and the jobs of a filter."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from graphile_worker.cli.tables import Table
from graphile_worker.errors import InvalidFilter
from graphile_worker.gw import explain, jobs, reads, stats
from graphile_worker.gw.queue import Queue, opened
from graphile_worker.gw.values import short, since

COLUMNS = ("id", "state", "task", "queue", "run at", "attempts", "worker", "error")
#: What a row of a table narrows the jobs down to.
NARROWS = {"Tasks": "task", "Queues": "queue", "Workers": "worker"}
_FILTERS = ("task", "queue", "key", "worker", "error")


@dataclass(frozen=True)
class Shown:
    """The numbers at a moment: one line of totals, and tables by their titles."""

    totals: Table
    tables: dict[str, Table]


@dataclass
class Wanted:
    """What the user wants to see, which the thread that reads asks for."""

    most: int
    filters: reads.Filters = field(default_factory=reads.Filters)


def read(queue: Queue, wanted: Wanted, rates: dict[str, float]) -> Shown:
    """Read the numbers, and the jobs that fit the filters."""
    found = stats.read_stats(queue, wanted.most)
    totals, *others = stats.all_tables(found, rates)
    by_title = {(table.title or "").split()[0]: table for table in others}
    with queue.limited(read_only=True):
        rows = reads.search(queue, wanted.filters, None).jobs
    listed = [
        (
            row["id"], row["state"], row["task_identifier"], row["queue_name"],
            since(row["run_at"], found.now), f"{row['attempts']}/{row['max_attempts']}",
            row["locked_by"], short(reads.headline(row["last_error"])),
        )
        for row in rows
    ]  # fmt: skip
    tables = {name: by_title.get(name, Table((name.lower()[:-1],), [])) for name in NARROWS}
    if "Progress" in by_title:
        tables["Progress"] = by_title["Progress"]
    return Shown(totals, {**tables, "Jobs": Table(COLUMNS, listed)})


def filters_of(text: str) -> reads.Filters:
    """Read a filter such as ``state:failed task:send_email error:"time-out"``.

    A word without a colon is a task. Raise InvalidFilter for what is not understood.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidFilter(f"the filter {text!r} has a quote that does not end") from error
    states: list[str] = []
    found: dict[str, str] = {}
    for word in words:
        name, colon, value = word.partition(":")
        if not colon or (name not in _FILTERS and name != "state"):
            name, value = "task", word
        if name == "state" and value not in jobs.STATES:
            raise InvalidFilter(f"state {value!r} is unknown: use {', '.join(jobs.STATES)}")
        if name == "state":
            states.append(value)
        else:
            found[name] = value
    return reads.Filters(states=states, **found)


def as_filter(name: str, value: str) -> str:
    """Return the text of a filter."""
    return f"{name}:{shlex.quote(value)}"


def everything_about(options: argparse.Namespace, job: int) -> str:
    """Return what gw job and gw explain say of a job."""
    with opened(options) as queue:
        found, text = jobs.describe(queue, job)
        if found["state"] in jobs.STATES:
            return f"{explain.as_text(explain.explain(queue, job))}\n\n{text}"
        return text


def sorted_rows(table: Table, column: int, reverse: bool) -> list[Sequence[object]]:
    """Return the rows by a column: numbers by their value, and rows without one last."""

    def key(row: Sequence[object]) -> tuple[bool, float, str]:
        cell = row[column]
        number = float(cell) if isinstance(cell, int | float) else 0.0
        return (cell in (None, "")) != reverse, number, str(cell or "").lower()

    return sorted(table.rows, key=key, reverse=reverse)
