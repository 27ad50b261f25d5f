"""gw mcp: serve the queue to assistants, read-only."""

from __future__ import annotations

import argparse

from graphile_worker.cli.flags import Parser
from graphile_worker.errors import GraphileWorkerError
from graphile_worker.gw.queue import connects, opened


def configure(parser: Parser) -> None:
    """Add the flags of gw mcp."""
    connects(parser)


def run(options: argparse.Namespace) -> int:
    """Serve on stdin and stdout until they are closed."""
    try:
        from graphile_worker.gw.mcp.server import server
    except ImportError as error:
        raise GraphileWorkerError(
            f"the MCP server needs {error.name}: run `pip install 'graphile-worker[mcp]'`"
        ) from error
    with opened(options) as queue:  # what is wrong from the start is said here, not to each call
        queue.need_records("has no history, limits and failed jobs to show")
    server(options).run("stdio")
    return 0
