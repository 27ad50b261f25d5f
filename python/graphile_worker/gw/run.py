"""gw run: the flags of a worker, the tasks and settings they stand for, and its logging."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from graphile_worker import flags
from graphile_worker.flags import Parser
from graphile_worker.gw.values import seconds, whole

#: The flags that are settings of WorkerOptions under the same name.
SETTINGS = (
    "listen_dsn", "schema", "concurrency", "prefetch", "poll_interval", "grace", "forbidden_flags",
)  # fmt: skip
_LEVELS = ("debug", "info", "warning", "error")


def configure(parser: Parser) -> None:
    """Add the flags of gw run."""
    parser.add_argument(
        "tasks", nargs="*", metavar="TASKS",
        help="where the tasks are: a folder, a module, or module:name"
        " (default: the folder or module tasks)",
    )  # fmt: skip
    flags.connects(parser)
    flags.env(parser, "--listen-dsn", help="where to LISTEN, if --dsn leads to a pooler")
    flags.env(parser, "--no-listen", switch=True, help="only poll")
    flags.env(parser, "--no-prepare", switch=True, help="no prepared statements, for old poolers")
    flags.env(parser, "--once", switch=True, help="run what is due, and leave")
    flags.env(parser, "--concurrency", "-c", type=whole(1, 10000), help="jobs at once (default 10)")
    flags.env(
        parser, "--processes", type=whole(1, 1000), help="processes, each a worker (default 1)"
    )
    flags.env(parser, "--prefetch", type=whole(0, 10000), help="jobs taken ahead")
    flags.env(
        parser, "--poll-interval", type=seconds, help="seconds between two looks (default 15)"
    )
    flags.env(parser, "--grace", type=_grace, help="seconds that running jobs have (default 30)")
    flags.env(parser, "--forbidden-flags", several=True, help="leave jobs with it; may be repeated")
    flags.env(parser, "--crontab", help="file of recurring jobs (default: crontab, if it is there)")
    flags.env(
        parser, "--metrics-port", type=whole(1, 65535),
        help="serve /metrics and /healthz here; further processes at the next ports",
    )  # fmt: skip
    flags.env(parser, "--metrics-host", default="127.0.0.1", help="address for that")
    flags.env(parser, "--uvloop", switch=True, help="run on uvloop")
    flags.env(parser, "--log-json", switch=True, help="log a JSON object a line")
    flags.env(parser, "--log-level", choices=_LEVELS, default="info", help="what to log (info)")


def _grace(text: str) -> float:
    return 0.0 if text in ("0", "0.0") else seconds(text)


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of a worker; what was not given keeps its default."""
    given = {name: getattr(options, name) for name in SETTINGS}
    found = {name: value for name, value in given.items() if value is not None}
    found["dsn"] = flags.dsn(options)
    if options.no_listen:
        found["listen"] = False
    if options.no_prepare:
        found["prepare"] = False
    return found


class JsonFormatter(logging.Formatter):
    """A JSON object for each record, with the job that it is about."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("job_id", "task_identifier", "attempt", "worker_id"):
            if hasattr(record, name):
                entry[name] = getattr(record, name)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure_logging(options: argparse.Namespace) -> None:
    """Send what is logged to stderr, for people or as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter()
        if options.log_json
        else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    level = "debug" if options.verbose else options.log_level
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def run(options: argparse.Namespace) -> int:
    """Start the worker, and return its exit code."""
    from graphile_worker.gw.serve import run_command  # which the other commands do not need

    configure_logging(options)
    return run_command(options)
