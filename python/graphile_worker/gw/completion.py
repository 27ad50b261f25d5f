"""gw completion: what a shell needs to complete commands and flags."""

from __future__ import annotations

import argparse

from graphile_worker.cli.flags import Parser
from graphile_worker.errors import GraphileWorkerError


def configure(parser: Parser) -> None:
    """Add the flags of gw completion."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell")


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    try:
        import shtab
    except ImportError as error:
        raise GraphileWorkerError(
            "shtab writes completions: run `pip install 'graphile-worker[cli]'`"
        ) from error
    from graphile_worker.gw.cli import build_parser

    print(shtab.complete(build_parser(), options.shell))
    return 0
