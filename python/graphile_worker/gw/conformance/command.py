"""gw conformance: check whether a worker, in whatever language, keeps the rules of the protocol."""

from __future__ import annotations

import argparse
import shlex
import shutil
from collections.abc import Sequence
from typing import Any

from graphile_worker.cli import flags, progress, tables
from graphile_worker.cli.flags import Parser
from graphile_worker.cli.tables import Table
from graphile_worker.errors import InvalidArgument
from graphile_worker.gw.values import whole

_LINES_OF_LOG = 20


def configure(parser: Parser) -> None:
    """Add the flags of gw conformance."""
    flags.env(
        parser, "--command", default="", dest="worker", metavar="COMMAND",
        help="what starts a process of the worker, such as './worker'",
    )  # fmt: skip
    flags.env(
        parser, "--rule", type=whole(1, 21), several=True, metavar="N",
        help="check only this rule of the protocol; may be repeated",
    )  # fmt: skip
    flags.env(
        parser, "--owner", switch=True,
        help="connect as the owner of the tables, for workers that do not use the functions",
    )  # fmt: skip
    flags.env(
        parser, "--timeout", type=whole(1, 3600), default=30,
        help="how many seconds to wait for what must come (default 30)",
    )  # fmt: skip
    flags.env(
        parser, "--at-once", type=whole(1, 32), default=4,
        help="how many checks run at once (default 4)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Run the checks; fail if a rule is not kept."""
    try:
        command = shlex.split(options.worker)
    except ValueError as error:
        raise InvalidArgument(f"--command {options.worker!r}: {error}") from error
    if not command:
        raise InvalidArgument("say what starts a worker, such as --command './worker'")
    if shutil.which(command[0]) is None:
        raise InvalidArgument(
            f"--command {options.worker!r}: the program is not found; give its path"
        )
    if not options.json:
        tables.needed()
    from graphile_worker.gw.conformance.runner import chosen, private_server, run_checks
    from graphile_worker.gw.conformance.stage import Settings

    settings = Settings(command, options.timeout, options.owner)
    selected = chosen(options.rule or ())
    with progress.bar("check", len(selected)) as bar, private_server() as (server, source):
        results = run_checks(
            selected, settings, server, source,
            at_once=options.at_once, done=lambda _: bar.advance(1),
        )  # fmt: skip
    kept = [result for result in results if result.is_kept]
    rules = _rules(results, options.rule)
    found = {
        "rules": [{"rule": n, "text": text, "is_kept": held} for n, text, held in rules],
        "checks": [
            {
                "check": result.check, "rules": list(result.rules), "is_kept": result.is_kept,
                "seen": result.broken or None, "log": result.log if result.broken else None,
            }
            for result in results
        ],
    }  # fmt: skip
    tables.show(options, found, lambda: _tables(rules, results))
    if not options.json:
        for result in results:
            lines = result.log.splitlines()[-_LINES_OF_LOG:]
            if result.broken and lines:
                print(f"\nThe worker's output during {result.check!r}:", *lines, sep="\n  ")
        print(f"\n{len(kept)} of {len(results)} checks passed.")
    return 0 if len(kept) == len(results) else 1


def _rules(results: Sequence[Any], only: list[int] | None) -> list[tuple[int, str, bool]]:
    from graphile_worker.gw.conformance.rules import RULES

    return [
        (number, text, all(result.is_kept for result in results if number in result.rules))
        for number, text in RULES.items()
        if only is None or number in only
    ]


def _tables(rules: list[tuple[int, str, bool]], results: Sequence[Any]) -> list[Table]:
    shown = [
        Table(
            ("rule", "", "kept"),
            [(number, text, "yes" if held else "no") for number, text, held in rules],
        )
    ]
    broken = [result for result in results if result.broken]
    if broken:
        rows = [
            (", ".join(map(str, result.rules)), result.check, result.broken) for result in broken
        ]
        shown.append(Table(("rules", "check", "what was seen"), rows, title="\nNot kept"))
    return shown
