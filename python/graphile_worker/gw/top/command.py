"""gw top: the numbers of gw stats, live."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

from graphile_worker.cli import flags, nodes, tables
from graphile_worker.cli.flags import Parser
from graphile_worker.errors import InvalidArgument
from graphile_worker.gw import stats
from graphile_worker.gw.queue import connects, opened
from graphile_worker.gw.values import seconds, whole

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
    """Show the numbers until interrupted: on a screen with keys in a terminal, else as text."""
    if not options.json:
        tables.needed()
    try:
        if options.once and nodes.is_cluster(options):
            return nodes.run_on_each(run, options)
        if options.once:
            with opened(options) as queue:
                stats_, rates = stats.read_stats(queue, options.limit), dict[str, float]()
            _print(options, stats_, rates)
        elif options.json or not all(s.isatty() for s in (sys.stdin, sys.stdout, sys.stderr)):
            if nodes.is_cluster(options):
                raise InvalidArgument(
                    "outside a terminal, gw top of several databases needs --once"
                )
            for found in _frames(options):
                _print(options, *found)
                sys.stdout.flush()
        else:
            from graphile_worker.gw.top.app import Top

            several = nodes.is_cluster(options)
            Top(nodes.each_of(options) if several else {"": options}).show()
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
