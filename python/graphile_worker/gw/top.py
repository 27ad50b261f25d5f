"""gw top: the numbers of gw stats, live."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psycopg

from graphile_worker.cli import flags
from graphile_worker.cli.flags import Parser
from graphile_worker.errors import GraphileWorkerError
from graphile_worker.gw import stats, tables
from graphile_worker.gw.queue import connects, opened
from graphile_worker.gw.values import plain, seconds, whole

if TYPE_CHECKING:
    from rich.console import Group

Frame = tuple[stats.Stats, dict[str, float]]


def configure(parser: Parser) -> None:
    """Add the flags of gw top."""
    connects(parser)
    flags.env(
        parser, "--interval", type=seconds, default=2.0,
        help="seconds between updates (default 2)",
    )  # fmt: skip
    flags.env(
        parser, "--limit", type=whole(1, 1000), default=10,
        help="the most tasks, queues and workers to show (default 10)",
    )  # fmt: skip
    flags.env(parser, "--once", switch=True, help="print once, then exit")


def run(options: argparse.Namespace) -> int:
    """Show frame after frame until interrupted."""
    if not options.json:
        tables.needed()
    try:
        if options.once:
            with opened(options) as queue:
                stats_, rates = stats.read_stats(queue, options.limit), dict[str, float]()
            _print(options, stats_, rates)
        elif options.json or not sys.stdout.isatty():
            for found in _frames(options):
                _print(options, *found)
                sys.stdout.flush()
        else:
            _live(options)
    except KeyboardInterrupt:  # as one leaves it
        pass
    return 0


def _print(options: argparse.Namespace, found: stats.Stats, rates: dict[str, float]) -> None:
    tables.show(options, stats.as_json(found, rates), lambda: stats.all_tables(found, rates))


def _frames(options: argparse.Namespace) -> Iterator[Frame]:
    with opened(options) as queue:
        before = None
        while True:
            after = stats.counted(queue)
            yield stats.read_stats(queue, options.limit), stats.speed(before or after, after)
            before = after
            time.sleep(options.interval)


def _live(options: argparse.Namespace) -> None:
    from rich.live import Live
    from rich.text import Text

    began = False
    with Live(console=tables.console(), screen=True, auto_refresh=False) as live:
        while True:
            try:
                for found in _frames(options):
                    began = True
                    live.update(frame(*found), refresh=True)
            except (psycopg.OperationalError, GraphileWorkerError) as error:
                if not began:  # what is wrong from the start is no passing trouble
                    raise
                live.update(Text(f"{plain(error)}\ntrying again"), refresh=True)
                time.sleep(options.interval)


def frame(found: stats.Stats, rates: dict[str, float]) -> Group:
    """Return one frame in rich's form."""
    from rich.console import Group
    from rich.text import Text

    head = Text(f"gw top, {found.now.isoformat(' ', 'seconds')}; Ctrl-C leaves\n", style="dim")
    return Group(head, *(tables.grid(table) for table in stats.all_tables(found, rates)))
