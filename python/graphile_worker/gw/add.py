"""gw add: put jobs into the queue."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any, get_args

from graphile_worker.cli import flags
from graphile_worker.cli.flags import Parser
from graphile_worker.errors import InvalidPayload
from graphile_worker.gw.queue import connects, opened
from graphile_worker.gw.values import many, moment, plain, whole
from graphile_worker.job import JobKeyMode, TaskSpec


def configure(parser: Parser) -> None:
    """Add the flags of gw add."""
    parser.add_argument("task", metavar="TASK", help="identifier of the task")
    parser.add_argument(
        "payload", metavar="PAYLOAD", nargs="?",
        help="JSON; - reads it from standard input (default: {})",
    )  # fmt: skip
    connects(parser)
    flags.env(
        parser, "--lines", switch=True,
        help="add a job per line of standard input, with the line as payload; all or none",
    )  # fmt: skip
    flags.env(parser, "--queue", help="queue; its jobs run one at a time")
    flags.env(
        parser, "--run-at", type=moment, help="when: 10m (from now) or a time with its offset"
    )
    flags.env(parser, "--priority", type=whole(-32768, 32767), help="lower numbers run first")
    flags.env(parser, "--max-attempts", type=whole(1, 32767), help="how many attempts (default 25)")
    flags.env(parser, "--key", help="job key: a job with it is replaced")
    flags.env(
        parser,
        "--key-mode",
        choices=get_args(JobKeyMode),
        help="what happens to a job with the key",
    )
    flags.env(parser, "--flag", several=True, help="flag of the job; may be repeated")


class _Json(str):
    """JSON text that was checked and is sent unchanged."""


def _checked(text: str, where: str) -> _Json:
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidPayload(
            f"{where} {text.strip()[:60]!r} is no JSON ({error}): quote it for the shell, such as"
            """ '{"to": "ann@example.org"}'; nothing was added"""
        ) from error
    return _Json(text.strip())


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _lines() -> Iterator[tuple[int, str]]:
    return ((n, line) for n, line in enumerate(sys.stdin, 1) if line.strip())


def run(options: argparse.Namespace) -> int:
    """Add a job, or one for each line."""
    spec = TaskSpec(
        queue_name=options.queue, run_at=options.run_at, priority=options.priority,
        max_attempts=options.max_attempts, job_key=options.key, job_key_mode=options.key_mode,
        flags=options.flag,
    )  # fmt: skip
    if options.lines:
        if options.payload not in (None, "-"):
            raise InvalidPayload(
                "with --lines, payloads come from standard input: leave PAYLOAD out"
            )
        if options.key is not None:
            raise InvalidPayload("with --lines, each job would replace the last: leave --key out")
        payloads = [_checked(line, f"line {n}") for n, line in _lines()]
    elif options.payload is None:
        payloads = [_Json("{}")]
    else:
        text = sys.stdin.read() if options.payload == "-" else options.payload
        payloads = [_checked(text, "payload")]
    with opened(options) as queue, queue.limited():
        utils = type(queue.utils)(queue.conn, schema=queue.schema, dumps=str)
        if options.lines:
            jobs = utils.add_jobs([(options.task, payload) for payload in payloads], spec)
        else:
            jobs = [utils.add_job(options.task, payloads[0], spec)]
    ids = [job.id for job in jobs]
    if options.lines:
        flags.out(
            options, {"ids": ids}, f"Added {many(len(ids), 'job')} for {plain(options.task)}."
        )
    else:
        job = jobs[0]
        answer = {
            "id": job.id, "task_identifier": job.task_identifier, "queue_name": job.queue_name,
            "run_at": job.run_at.isoformat(), "key": job.key, "revision": job.revision,
        }  # fmt: skip
        text = f"Added job {job.id} for {plain(job.task_identifier)}."
        if job.revision:
            text = (
                f"Job {job.id} has the key {plain(job.key)}: this was change {job.revision} of it."
            )
        flags.out(options, answer, text)
    return 0
