"""gw retry, fail, complete, reschedule, cancel and remove: change jobs."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence

from graphile_worker.cli import flags, progress
from graphile_worker.cli.flags import Parser
from graphile_worker.client.sync import WorkerUtils
from graphile_worker.errors import Busy, InvalidFilter
from graphile_worker.gw.jobs import STATE, STATES, retry
from graphile_worker.gw.queue import Queue, agreed, connects, opened
from graphile_worker.gw.values import job_id, many, moment, plain, whole
from graphile_worker.job import Job

#: So many jobs are changed in one transaction.
AT_ONCE = 1000
Verb = Callable[[WorkerUtils, Sequence[int]], list[Job]]

_MATCHING = f"""
    select id from {{s}}.jobs
    where (%(tasks)s::text[] is null or task_identifier = any (%(tasks)s::text[]))
    and (%(queues)s::text[] is null or queue_name = any (%(queues)s::text[]))
    and {STATE} = any (%(states)s::text[])
    order by id
"""
_BY_KEY = "select id, key from {s}.jobs where key = any (%(keys)s::text[])"
#: What became of jobs that were not cancelled.
_UNTOUCHED = {
    "not_cancellable": "runs in a worker that cannot be told to stop it (Node's)",
    "failed": "has permanently failed",
    "missing": "is not there",
}
_WHY = """
    select ids.id, jobs.id is not null as is_there, jobs.locked_by
    from pg_catalog.unnest(%(ids)s::bigint[]) as ids (id) left join {s}.jobs on jobs.id = ids.id
    order by ids.id
"""


def _selects(parser: Parser, states: Sequence[str], *, running: bool = False) -> None:
    """Add the flags that select jobs. They have no variables: a variable must not choose jobs."""
    connects(parser)
    parser.add_argument("ids", type=job_id, nargs="*", metavar="ID", help="id of a job")
    parser.add_argument("--task", action="append", help="all for this task; may be repeated")
    parser.add_argument("--queue", action="append", help="all in this queue; may be repeated")
    choices = [state for state in STATES if running or state != "running"]
    parser.add_argument(
        "--state", action="append", choices=choices,
        help=f"only those in this state; may be repeated (default: {', '.join(states)})",
    )  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="do not ask before changing many jobs")
    parser.set_defaults(default_states=list(states))


def configure_retry(parser: Parser) -> None:
    """Add the flags of gw retry."""
    _selects(parser, ["failed"])
    parser.add_argument("--all-failed", action="store_true", help="all permanently failed jobs")


def configure_fail(parser: Parser) -> None:
    """Add the flags of gw fail."""
    _selects(parser, ["ready", "scheduled"])
    flags.env(parser, "--message", help="text for last_error")


def configure_complete(parser: Parser) -> None:
    """Add the flags of gw complete."""
    _selects(parser, ["ready", "scheduled", "failed"])


def configure_discard(parser: Parser) -> None:
    """Add the flags of gw discard."""
    _selects(parser, ["failed"])
    parser.add_argument("--all-failed", action="store_true", help="all permanently failed jobs")
    flags.env(parser, "--reason", help="why, for people")


def configure_reschedule(parser: Parser) -> None:
    """Add the flags of gw reschedule."""
    _selects(parser, ["ready", "scheduled"])
    flags.env(parser, "--run-at", type=moment, help="when: now, 10m (from now) or a time")
    flags.env(parser, "--priority", type=whole(-32768, 32767), help="lower numbers run first")
    flags.env(parser, "--attempts", type=whole(0, 32767), help="number of used attempts")
    flags.env(parser, "--max-attempts", type=whole(1, 32767), help="how many attempts")


def configure_cancel(parser: Parser) -> None:
    """Add the flags of gw cancel."""
    _selects(parser, ["ready", "scheduled", "running"], running=True)
    parser.add_argument("--key", action="append", help="key of a job; may be repeated")
    flags.env(parser, "--reason", help="why, for people")


def configure_remove(parser: Parser) -> None:
    """Add the flags of gw remove."""
    connects(parser)
    parser.add_argument("ids", type=job_id, nargs="*", metavar="ID", help="id of a job")
    parser.add_argument(
        "--key", action="append",
        help="key of a job; may be repeated. A running job loses its key and is not retried",
    )  # fmt: skip


def run_retry(options: argparse.Namespace) -> int:
    """Run jobs now, with all their attempts."""
    return _change(
        options, "retry",
        retry,
    )  # fmt: skip


def run_fail(options: argparse.Namespace) -> int:
    """Let jobs fail permanently."""
    message = options.message
    return _change(options, "fail", lambda utils, ids: utils.permanently_fail_jobs(ids, message))


def run_complete(options: argparse.Namespace) -> int:
    """Delete jobs as completed."""
    return _change(options, "complete", lambda utils, ids: utils.complete_jobs(ids))


def run_discard(options: argparse.Namespace) -> int:
    """Delete jobs that have permanently failed."""
    reason = options.reason
    return _change(options, "discard", lambda utils, ids: utils.discard_jobs(ids, reason))


def run_reschedule(options: argparse.Namespace) -> int:
    """Change when, and how many times, jobs run."""
    changes = {
        name: getattr(options, name) for name in ("run_at", "priority", "attempts", "max_attempts")
    }
    if all(value is None for value in changes.values()):
        raise InvalidFilter(
            "say what to change: --run-at, --priority, --attempts or --max-attempts;"
            " nothing was changed"
        )
    return _change(options, "reschedule", lambda utils, ids: utils.reschedule_jobs(ids, **changes))


def _change(options: argparse.Namespace, name: str, verb: Verb) -> int:
    """Change the named jobs, or all that match after a confirmation."""
    chosen = bool(options.task or options.queue or options.state)
    chosen = chosen or getattr(options, "all_failed", False)
    if bool(options.ids) == chosen:
        more = ", --all-failed" if hasattr(options, "all_failed") else ""
        raise InvalidFilter(
            f"say which jobs: their IDs, or --task, --queue, --state{more};"
            f"{' not both;' if chosen else ''} nothing was changed"
        )
    if getattr(options, "all_failed", False) and options.state:
        raise InvalidFilter("--all-failed and --state exclude each other; nothing was changed")
    with opened(options) as queue:
        ids: list[int] = list(dict.fromkeys(options.ids))
        if chosen:
            ids = _matching(queue, options)
            if ids:
                agreed(options, f"{many(len(ids), 'job')}, id {ids[0]} to {ids[-1]}: {name}")
        changed: list[int] = []
        with progress.bar(name, len(ids)) as bar:
            for start in range(0, len(ids), AT_ONCE):
                some = ids[start : start + AT_ONCE]
                try:
                    with queue.limited():
                        jobs = verb(queue.utils, some)
                except Busy as error:
                    if not changed:
                        raise
                    raise Busy(
                        f"{len(changed)} of {len(ids)} jobs were changed, then: {error}"
                    ) from error
                changed += (job.id for job in jobs)
                bar.advance(len(some))
        left = _left_out(queue, sorted(set(ids) - set(changed)), name)
    return _told(options, changed, left, strict=not chosen)


def _matching(queue: Queue, options: argparse.Namespace) -> list[int]:
    with queue.limited():
        found = queue.rows(
            _MATCHING, tasks=options.task, queues=options.queue,
            states=options.state or options.default_states,
        )  # fmt: skip
    return [row["id"] for row in found]


def _left_out(queue: Queue, ids: list[int], name: str = "") -> dict[int, str]:
    if not ids:
        return {}
    with queue.limited():
        rows = queue.rows(_WHY, ids=ids)
    return {
        row["id"]: "is not there"
        if not row["is_there"]
        else f"runs, by worker {plain(row['locked_by'])}"
        if row["locked_by"] is not None
        else "has not failed permanently, or was in use"
        if name == "discard"
        else "was in use; try again"
        for row in rows
    }


def _told(
    options: argparse.Namespace, changed: list[int], left: dict[int, str], *, strict: bool
) -> int:
    answer = {
        "changed": changed,
        "left_out": [{"id": id_, "why": why} for id_, why in left.items()],
    }
    shown = f": {', '.join(map(str, changed))}" if len(changed) <= 20 and changed else ""
    flags.out(options, answer, f"Changed {many(len(changed), 'job')}{shown}.")
    for id_, why in left.items():
        print(f"{options.prog}: job {id_} {why}; it was not changed", file=sys.stderr)
    return 1 if left and strict else 0


def run_cancel(options: argparse.Namespace) -> int:
    """Cancel the named jobs, or all that match after a confirmation."""
    chosen = bool(options.task or options.queue or options.state)
    named = bool(options.ids or options.key)
    if named == chosen:
        raise InvalidFilter(
            "say which jobs: their IDs or --key, or else --task, --queue, --state;"
            " nothing was changed"
        )
    with opened(options) as queue:
        ids, absent = _named_ids(queue, options) if named else (_matching(queue, options), [])
        if chosen and ids:
            agreed(options, f"{many(len(ids), 'job')}, id {ids[0]} to {ids[-1]}: cancel")
        outcomes: dict[int, str] = {}
        with progress.bar("cancel", len(ids)) as bar:
            for start in range(0, len(ids), AT_ONCE):
                some = ids[start : start + AT_ONCE]
                with queue.limited():
                    outcomes |= queue.utils.cancel_jobs(some, options.reason)
                bar.advance(len(some))
    counts = Counter(outcomes.values())
    text = f"Cancelled {many(counts['cancelled'], 'waiting job')}"
    if counts["cancelling"]:
        text += f", and told the workers of {many(counts['cancelling'], 'running job')} to stop"
    flags.out(options, {"outcomes": outcomes, "absent_keys": absent}, f"{text}.")
    for key in absent:
        print(f"{options.prog}: no job has the key {plain(key)}", file=sys.stderr)
    left = {id_: _UNTOUCHED[why] for id_, why in outcomes.items() if why in _UNTOUCHED}
    for id_, why in left.items():
        print(f"{options.prog}: job {id_} {why}; it was not changed", file=sys.stderr)
    return 1 if named and (left or absent) else 0


def _named_ids(queue: Queue, options: argparse.Namespace) -> tuple[list[int], list[str]]:
    keys: list[str] = options.key or []
    with queue.limited(read_only=True):
        by_key = {row["key"]: row["id"] for row in queue.rows(_BY_KEY, keys=keys)}
    ids = dict.fromkeys([*options.ids, *(by_key[key] for key in keys if key in by_key)])
    return list(ids), [key for key in keys if key not in by_key]


def run_remove(options: argparse.Namespace) -> int:
    """Remove jobs by id or key."""
    keys: list[str] = options.key or []
    if not options.ids and not keys:
        raise InvalidFilter("say which jobs: their IDs, or --key KEY; nothing was changed")
    with opened(options) as queue:
        with queue.limited():
            jobs = queue.utils.complete_jobs(options.ids) if options.ids else []
            by_key = {key: queue.utils.remove_job(key) for key in keys}
        changed = [job.id for job in [*jobs, *filter(None, by_key.values())]]
        left = _left_out(queue, sorted(set(options.ids) - set(changed)))
    absent = [key for key, job in by_key.items() if job is None]
    for key in absent:
        print(f"{options.prog}: no job has the key {plain(key)}", file=sys.stderr)
    for job in filter(None, by_key.values()):
        if job.locked_at is not None:
            print(
                f"{options.prog}: job {job.id} is running: it lost its key and will not be retried",
                file=sys.stderr,
            )
    return max(_told(options, changed, left, strict=True), 1 if absent else 0)
