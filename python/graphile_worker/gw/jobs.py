"""gw jobs and gw job: read the jobs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, get_args

from graphile_worker.cli import flags, tables
from graphile_worker.cli.flags import Parser
from graphile_worker.cli.tables import Table
from graphile_worker.client.records.model import JobRecord
from graphile_worker.client.sync import WorkerUtils
from graphile_worker.errors import GraphileWorkerError
from graphile_worker.gw.queue import Queue, connects, opened
from graphile_worker.gw.records import history
from graphile_worker.gw.values import job_id, plain, short, since, whole
from graphile_worker.job import Job, JobState

STATES: tuple[str, ...] = get_args(JobState)


#: The state of a row of the view jobs, as ``state_of`` tells it of a job.
STATE = """case
      when locked_at is not null then 'running'
      when attempts >= max_attempts then 'failed'
      when run_at > pg_catalog.now() then 'scheduled'
      else 'ready'
    end"""


def state_of(job: Job, now: datetime) -> str:
    """Return the state of a job."""
    if job.locked_at is not None:
        return "running"
    if job.attempts >= job.max_attempts:
        return "failed"
    return "scheduled" if job.run_at > now else "ready"


def retry(utils: WorkerUtils, ids: Sequence[int]) -> list[Job]:
    """Run jobs now, with all their attempts; return those that were not running."""
    return utils.reschedule_jobs(ids, run_at=timedelta(), attempts=0)


def as_json(job: Job, now: datetime) -> dict[str, Any]:
    """Return a job with its state as JSON has it."""
    found = {"state": state_of(job, now), **job._asdict(), "flags": sorted(job.flags)}
    times = ("run_at", "created_at", "updated_at", "locked_at")
    return found | {name: found[name] and found[name].isoformat() for name in times}


def configure_jobs(parser: Parser) -> None:
    """Add the flags of gw jobs."""
    connects(parser)
    flags.env(
        parser, "--state", several=True, choices=STATES, help="in this state; may be repeated"
    )
    flags.env(parser, "--task", several=True, help="for this task; may be repeated")
    flags.env(parser, "--queue", several=True, help="in this queue; may be repeated")
    flags.env(parser, "--key", several=True, help="with this key; may be repeated")
    flags.env(parser, "--after", type=job_id, help="only jobs with a higher id, for the next page")
    flags.env(
        parser, "--limit", type=whole(1, 10000), default=100,
        help="the most jobs to show, 1 to 10000 (default 100)",
    )  # fmt: skip


def run_jobs(options: argparse.Namespace) -> int:
    """Show jobs, by id."""
    if not options.json:
        tables.needed()
    with opened(options) as queue, queue.limited(read_only=True):
        now = queue.now()
        jobs = queue.utils.list_jobs(
            states=options.state, tasks=options.task, queues=options.queue, keys=options.key,
            after=options.after, limit=options.limit,
        )  # fmt: skip
    columns = (
        "id", "state", "task", "queue", "priority", "run at", "attempts", "key", "worker", "error",
    )  # fmt: skip
    rows = [
        (
            job.id, state_of(job, now), job.task_identifier, job.queue_name, job.priority,
            since(job.run_at, now), f"{job.attempts}/{job.max_attempts}", job.key, job.locked_by,
            short(job.last_error),
        )
        for job in jobs
    ]  # fmt: skip
    table = Table(columns, rows, nothing="no job")
    tables.show(options, [as_json(job, now) for job in jobs], lambda: [table])
    if len(jobs) == options.limit and not options.json:
        print(f"There may be more: --after {jobs[-1].id}, or a higher --limit")
    return 0


def names_one(parser: Parser) -> None:
    """Add the flags that name one job."""
    connects(parser)
    parser.add_argument("id", type=job_id, nargs="?", metavar="ID", help="id of the job")
    flags.env(parser, "--key", help="its key, instead of the id")


configure_job = names_one


def one_of(options: argparse.Namespace) -> int | str:
    """Return the id or key that names one job; an id that was given wins over the variable."""
    if options.id is not None and isinstance(options.key, flags.FromEnvironment):
        return int(options.id)
    if (options.id is None) == (options.key is None):
        raise GraphileWorkerError("say which job: its ID, or --key KEY")
    name: int | str = options.key if options.id is None else options.id
    return name


def absent(name: int | str) -> GraphileWorkerError:
    """Return the error that there is no such job."""
    named = f"with the key {name!r}" if isinstance(name, str) else str(name)
    return GraphileWorkerError(
        f"no job {named}: it may have completed (completed jobs are deleted, unless"
        " `gw history keep` was called), been removed, or never existed; `gw jobs` lists the jobs"
    )


def _recorded(record: JobRecord | None) -> dict[str, Any]:
    """Return what is known of a job in the queue beside its row."""
    if record is None:
        return {}
    found = history.as_json(record)
    return {name: found[name] for name in ("progress", "progress_message", "attempt_log")}


def _attempt_lines(record: JobRecord | None) -> Iterator[str]:
    for each in record.attempt_log if record else ():
        started = each.started_at or each.ended_at
        yield (
            f"{each.attempt}: {each.outcome}, {each.ended_at.isoformat(' ', 'seconds')}, after"
            f" {history.took(each.ended_at - started)}, by {each.worker_id or 'no worker'}"
        )
        yield from (f"   {line}" for line in (each.error or "").splitlines())


def _shown(
    label: str, value: Any, source: Job | JobRecord | None, record: JobRecord | None, now: datetime
) -> str:
    """Return what is shown of a member of a job."""
    if label == "payload":
        return flags.as_json(value)
    if label == "attempt_log":
        return "\n".join(_attempt_lines(record)) or "-"
    if label == "flags":
        return ", ".join(value) or "-"
    if value is None or value == "":
        return "-"
    if label.endswith("_at"):
        return f"{value} ({since(getattr(source, label), now)})"
    if label == "result":
        return flags.as_json(value)
    if label == "progress":
        return f"{value:.0%}"
    if label == "duration":
        return history.took(timedelta(seconds=value))
    return str(value)


def describe(queue: Queue, name: int | str) -> tuple[dict[str, Any], str]:
    """Return everything that is known of a job, as JSON has it and as text; raise if it is none."""
    record: JobRecord | None = None
    with queue.limited(read_only=True):
        now = queue.now()
        job = queue.utils.get_job(name)
        job_id = job.id if job is not None else name
        if queue.has_controls and isinstance(job_id, int):
            record = queue.utils.find_job(job_id)
    if job is not None:
        found = as_json(job, now) | _recorded(record)
    elif record is not None:
        found = history.as_json(record)
    else:
        raise absent(name)
    lines = []
    for label, value in found.items():
        shown = _shown(label, value, job or record, record, now)
        text = "\n                  ".join(plain(line) for line in shown.splitlines())
        lines.append(f"{label:18}{text}")
    return found, "\n".join(lines)


def run_job(options: argparse.Namespace) -> int:
    """Show one job with everything that is known of it."""
    name = one_of(options)
    with opened(options) as queue:
        found, text = describe(queue, name)
    flags.out(options, found, text)
    return 0
