"""gw drain-node: move the waiting jobs of a node to another, and wait for those that run."""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from typing import Any

import psycopg

from graphile_worker.cli import flags, progress
from graphile_worker.cli.flags import Parser
from graphile_worker.cli.nodes import for_one
from graphile_worker.errors import GraphileWorkerError, InvalidArgument
from graphile_worker.gw.cluster.move import Move
from graphile_worker.gw.queue import Queue, connects, opened
from graphile_worker.gw.values import many, plain

_LEFT = """
    select pg_catalog.count(*) as jobs,
      pg_catalog.count(*) filter (where locked_at is not null) as running
    from {s}.jobs
"""
_SCHEDULES = "select name from {s}.schedules order by name"
_PAUSE = 0.5


def configure(parser: Parser) -> None:
    """Add the flags of gw drain-node."""
    connects(parser)
    parser.set_defaults(timeout=600.0)  # of a round that moves a long queue
    flags.env(parser, "--to", default="", metavar="DSN", help="the database to move the jobs to")


def run(options: argparse.Namespace) -> int:
    """Move jobs until none is left."""
    if not options.to:
        raise InvalidArgument("say where the jobs go, with --to; nothing was moved")
    with opened(options) as source, opened(for_one(options, options.to)) as target:
        _check(source, target)
        move = Move(source, target)
        move.recover()
        try:
            with progress.bar("move jobs") as bar:
                while left := _left(source):
                    running = many(left["running"], "running job")
                    bar.note(f"{move.moved.jobs} moved, waits for {running}")
                    if not move.round():
                        time.sleep(_PAUSE)
        except BaseException:
            with suppress(psycopg.Error, GraphileWorkerError):
                move.recover()
            raise
    moved = move.moved
    keys = f", {moved.without_key} of them without the key, which others have there"
    flags.out(
        options, moved,
        f"Moved {many(moved.jobs, 'job')}{keys if moved.without_key else ''}. No job is left.",
    )  # fmt: skip
    return 0


def _check(source: Queue, target: Queue) -> None:
    if source.version != target.version:
        raise GraphileWorkerError(
            f"the schemas have the versions {source.version} and {target.version}: run"
            " `gw-install upgrade`; nothing was moved"
        )
    source.need_records("moves no jobs")
    if names := [plain(row["name"]) for row in source.rows(_SCHEDULES)]:
        raise GraphileWorkerError(
            f"the schedules {', '.join(names)} would add jobs no more: set them on another node,"
            " end them here with `gw schedule end`, and try again; nothing was moved"
        )


def _left(source: Queue) -> dict[str, Any] | None:
    row = source.row(_LEFT)
    return row if row["jobs"] else None
