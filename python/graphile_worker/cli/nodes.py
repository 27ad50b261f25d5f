"""A command for several databases: one after the other, and each answer with its place."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from typing import TYPE_CHECKING

from graphile_worker.cli import flags
from graphile_worker.errors import InvalidArgument

if TYPE_CHECKING:
    from graphile_worker.worker.cluster.members import Members

Act = Callable[[argparse.Namespace], int]

#: They serve one queue, or would add the same to each.
_OF_ONE = ("add", "job", "explain", "drain-node", "import", "mcp")
#: They show several databases themselves.
_OF_SEVERAL = ("ui", "top")


def is_cluster(options: argparse.Namespace) -> bool:
    """Whether several databases are named, or all nodes of a cluster."""
    return bool(options.citus) or len(flags.dsns(options)) > 1


def members_of(options: argparse.Namespace) -> Members:
    """Return what tells which databases are meant, where there are several."""
    from graphile_worker.worker.cluster.members import CitusMembers, ListedMembers

    dsns = flags.dsns(options)
    if not options.citus:
        return ListedMembers(dsns)
    if len(dsns) > 1:
        raise InvalidArgument("--citus finds the nodes by itself: pass one --dsn")
    return CitusMembers(*dsns)


def for_one(options: argparse.Namespace, dsn: str) -> argparse.Namespace:
    """Return the options of a command for one database."""
    one = argparse.Namespace(**vars(options))
    one.dsn, one.dsns, one.citus = dsn, None, False
    return one


def each_of(options: argparse.Namespace) -> dict[str, argparse.Namespace]:
    """Return the options of a command for each database, by its place."""
    from graphile_worker.worker.cluster.members import place_of

    dsns = asyncio.run(members_of(options).current())
    return {place_of(dsn): for_one(options, dsn) for dsn in dsns}


def on_each(act: Act) -> Act:
    """Return the work of a command, done for each database that is named."""

    def run(options: argparse.Namespace) -> int:
        if not is_cluster(options) or options.command in _OF_SEVERAL:
            return act(options)
        if options.command in _OF_ONE:
            raise InvalidArgument(
                f"gw {options.command} is for one database: pass one --dsn, without --citus"
            )
        if options.command == "schedule" and options.action in ("set", "run"):
            raise InvalidArgument(
                "each database adds the runs of its schedules: set a schedule in one, by --dsn"
            )
        if getattr(options, "ids", None):
            raise InvalidArgument(
                "each database has its own ids: pass the --dsn of the one that has these jobs"
            )
        return run_on_each(act, options)

    return run


def run_on_each(act: Act, options: argparse.Namespace) -> int:
    """Do the work of a command for each database; return the worst exit code."""
    from graphile_worker.cli.command import guarded

    codes, answers = [0], []
    for place, one in each_of(options).items():
        one.prog = f"{options.prog}: {place}"
        if getattr(options, "json", False):
            with redirect_stdout(io.StringIO()) as out:
                codes.append(guarded(partial(act, one), one))
            text = out.getvalue()
            answers.append({"node": place, "answer": json.loads(text) if text else None})
        else:
            print(f"{'' if len(codes) == 1 else chr(10)}== {place}", flush=True)
            codes.append(guarded(partial(act, one), one))
    if answers:
        print(flags.as_json(answers))
    return max(codes)
