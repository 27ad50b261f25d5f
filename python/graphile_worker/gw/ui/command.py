"""gw ui: serve the dashboard."""

from __future__ import annotations

import argparse
import logging
import sys

from graphile_worker.cli import flags, nodes
from graphile_worker.cli.flags import Parser
from graphile_worker.errors import GraphileWorkerError, InvalidArgument
from graphile_worker.gw.queue import connects
from graphile_worker.gw.values import whole
from graphile_worker.naming import SCHEMA

#: Patterns of keys that are hidden, beside those that always are.
_HIDE = "keys whose values are hidden in payloads and results, such as card.* ; may be repeated"


def configure(parser: Parser) -> None:
    """Add the flags of gw ui."""
    connects(parser)
    flags.env(
        parser, "--database", several=True, metavar="NAME=DSN",
        help="a database to show under this name, instead of --dsn; NAME@SCHEMA=DSN for another"
        " schema; may be repeated",
    )  # fmt: skip
    flags.env(
        parser, "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)"
    )
    flags.env(
        parser, "--port", type=whole(0, 65535), default=8011, help="port (default 8011; 0: any)"
    )
    flags.env(
        parser, "--token",
        help="what users log in with, 16 characters or more; needed for any other host than"
        " this machine. The variable keeps it out of the list of processes",
    )  # fmt: skip
    flags.env(
        parser, "--allowed-host", several=True,
        help="host name under which it is served; may be repeated (default: any with a token)",
    )  # fmt: skip
    flags.env(parser, "--read-only", switch=True, help="offer no action")
    flags.env(parser, "--hide", several=True, metavar="PATTERN", help=_HIDE)
    flags.env(
        parser, "--prefix", default="", help="path under which a proxy serves it, such as /jobs"
    )


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted."""
    try:
        import uvicorn

        from graphile_worker.gw.ui.application import app
        from graphile_worker.gw.ui.redaction import HIDE
        from graphile_worker.gw.ui.security import is_loopback
        from graphile_worker.gw.ui.site import Database
    except ImportError as error:
        raise GraphileWorkerError(
            f"the dashboard needs {error.name}: run `pip install 'graphile-worker[web]'`"
        ) from error
    if not is_loopback(options.host) and not options.token:
        raise InvalidArgument(
            f"--host {options.host} can be reached by others: set a token (GW_TOKEN), or listen on"
            " 127.0.0.1; nothing was started"
        )
    trusted = tuple(options.trust_owner or ())
    if not nodes.is_cluster(options):
        databases = {"queue": Database(flags.dsn(options), options.schema, trusted)}
    elif options.database:
        raise InvalidArgument("pass each database with --dsn, or each with --database")
    else:
        databases = {
            place.replace("/", " "): Database(one.dsn, options.schema, trusted)
            for place, one in nodes.each_of(options).items()
        }
    if options.database:
        databases = {}
        for text in options.database:
            named, equals, dsn = text.partition("=")
            name, _, schema = named.partition("@")
            if not equals or not name or "/" in name or name in databases:
                raise InvalidArgument(
                    f"--database {text.partition('=')[0]!r} does not fit: use NAME=DSN, each name"
                    " once and without slashes; nothing was started"
                )
            databases[name] = Database(dsn, schema or SCHEMA, trusted)
    site = app(
        databases, token=options.token or None, hosts=options.allowed_host,
        read_only=options.read_only, hide=(*HIDE, *(options.hide or ())), timeout=options.timeout,
    )  # fmt: skip
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    uvicorn.run(
        site, host=options.host, port=options.port, root_path=options.prefix.rstrip("/"),
        log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=1,
        proxy_headers=False,
    )  # fmt: skip
    return 0
