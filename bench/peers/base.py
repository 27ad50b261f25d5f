"""What the benchmark knows of a contestant."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

# A worker's process imports this, and its memory is measured: nothing that not all of them need.
if TYPE_CHECKING:
    import psycopg

BENCH = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A queue with certain settings of its worker; subclasses say how to handle it."""

    name: str
    #: What the worker's process is told.
    settings: dict[str, Any] = field(default_factory=dict)

    #: The database that holds the empty schema, copied for each measurement.
    template = ""
    #: Whose rows, with an ``id`` that grows, are the jobs that are not done.
    jobs = ""
    #: Adds ``count`` jobs with the same ``payload``.
    insert = ""

    def prepare(self, dsn: str) -> None:
        """Install the schema."""
        raise NotImplementedError

    def command(self, dsn: str) -> list[str]:
        """Return what starts a worker: it prints the number and time of jobs (see ``job``)."""
        return [sys.executable, "-m", type(self).__module__, dsn, json.dumps(self.settings)]

    def load(self, conn: psycopg.Connection[Any], count: int, payload: dict[str, Any]) -> None:
        """Add equal jobs, and leave the commit to the caller where that is possible."""
        conn.execute(self.insert, {"count": count, "payload": json.dumps(payload)})
