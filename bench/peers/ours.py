"""graphile_worker's own worker, with asyncio's loop or uvloop."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Any

from peers import job
from peers.base import BENCH, Peer


class Ours(Peer):
    """The extension and the Python worker."""

    template = "ours"
    jobs = "graphile_worker._private_jobs"
    insert = """select count(*) from graphile_worker.add_jobs(array(
  select row('bench', %(payload)s, null, null, null, null, null, null)::graphile_worker.job_spec
  from generate_series(1, %(count)s)
))"""

    def prepare(self, dsn: str) -> None:
        import psycopg

        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("create extension graphile_worker")


class Released(Ours):
    """The Python worker on the schema of the last released version."""

    template = "released"

    def prepare(self, dsn: str) -> None:
        import psycopg
        from graphile_worker.naming import version_key

        frozen = (BENCH.parent / "sql" / "released.sha256").read_text()
        names = re.findall(r"graphile_worker--(\d+\.\d+\.\d+)\.sql", frozen)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(
                f"create extension graphile_worker version '{max(names, key=version_key)}'"
            )


#: A schema of ten properties, and a payload that fits.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "to": {"type": "string", "format": "email"},
        "subject": {"type": "string", "minLength": 1, "maxLength": 200},
        "attempt": {"type": "integer", "minimum": 0},
        "price": {"type": "number", "multipleOf": 0.01},
        "urgent": {"type": "boolean"},
        "order": {"type": "string", "format": "uuid"},
        "at": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 10},
        "kind": {"enum": ["welcome", "receipt", "reminder"]},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["to", "subject", "order", "at", "kind"],
    "additionalProperties": False,
}
FITS = {
    "to": "ann@example.org", "subject": "Your receipt", "attempt": 3, "price": 9.99,
    "urgent": True, "order": "123e4567-e89b-12d3-a456-426614174000",
    "at": "2026-11-28T10:00:00Z", "tags": ["new", "eu"], "kind": "receipt", "note": None,
}  # fmt: skip


class Checked(Ours):
    """The same, with payloads checked by a schema."""

    template = "checked"

    def prepare(self, dsn: str) -> None:
        super().prepare(dsn)
        import psycopg

        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(
                "select graphile_worker.set_payload_schema('bench', %s::text::json, 'warn')",
                [json.dumps(SCHEMA)],
            )


class Keeping(Ours):
    """The same, with history kept."""

    template = "keeping"

    def prepare(self, dsn: str) -> None:
        super().prepare(dsn)
        import psycopg

        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("select graphile_worker.keep_history()")


def main(dsn: str, settings: dict[str, Any]) -> None:
    from graphile_worker.worker import Events, run

    uvloop = settings.pop("uvloop", None)
    if settings.pop("fetches", None):
        settings["events"] = events = Events()
        # A line of four words: when jobs were taken, in how many seconds, and how many.
        events.on("fetch")(
            lambda event: print("fetch", time.time_ns(), event.seconds, event.count, flush=True)
        )
    working = run({"bench": job.work}, dsn=dsn, **settings)
    if uvloop:
        import uvloop as loop

        loop.run(working)
    else:
        asyncio.run(working)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
