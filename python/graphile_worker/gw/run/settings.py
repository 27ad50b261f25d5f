"""The settings of a worker that the flags of gw run stand for, and its logging."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from graphile_worker.cli import flags
from graphile_worker.cli.nodes import is_cluster
from graphile_worker.gw.values import seconds

#: The flags that are settings of WorkerOptions under the same name.
SETTINGS = (
    "listen_dsn", "schema", "concurrency", "prefetch", "poll_interval", "grace", "forbidden_flags",
    "trust_owner",
)  # fmt: skip
LEVELS = ("debug", "info", "warning", "error")


def grace(text: str) -> float:
    """Read a number of seconds, which may be none."""
    return 0.0 if text in ("0", "0.0") else seconds(text)


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of a worker; what was not given keeps its default."""
    given = {name: getattr(options, name) for name in SETTINGS}
    found = {name: value for name, value in given.items() if value is not None}
    if not is_cluster(options):
        (found["dsn"],) = flags.dsns(options)
    if options.no_listen:
        found["listen"] = False
    if options.no_prepare:
        found["prepare"] = False
    if options.redact is not None:
        from graphile_worker.worker.task_loading import load_function

        found["redact"] = load_function(options.redact)
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
