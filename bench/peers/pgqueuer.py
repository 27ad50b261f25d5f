"""PgQueuer as its pages on performance advise: asyncpg's pool, large batches, uvloop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from peers import job
from peers.base import Peer


class PgQueuer(Peer):
    """PgQueuer; its jobs are durable, its log and statistics are not ("balanced")."""

    template = "pgqueuer"
    jobs = "pgqueuer"
    insert = """insert into pgqueuer (priority, status, entrypoint, payload)
select 0, 'queued', 'bench', convert_to(%(payload)s, 'UTF8') from generate_series(1, %(count)s)"""

    def prepare(self, dsn: str) -> None:
        names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}
        where = {names[k]: v for k, v in (part.split("=") for part in dsn.split())}
        subprocess.run(
            [Path(sys.executable).with_name("pgq"), "install", "--durability", "balanced"],
            env={**os.environ, **where}, check=True, timeout=60, capture_output=True,
        )  # fmt: skip


async def main(dsn: str, settings: dict[str, Any]) -> None:
    import asyncio
    import signal

    import asyncpg
    from pgqueuer import PgQueuer as Queue
    from pgqueuer.models import Job

    parts: dict[str, Any] = dict(part.split("=") for part in dsn.split())
    pool = await asyncpg.create_pool(
        host=parts["host"], port=int(parts["port"]), user=parts["user"],
        database=parts["dbname"], min_size=5, max_size=20,
    )  # fmt: skip
    queue = Queue.from_asyncpg_pool(pool)

    @queue.entrypoint("bench")
    async def bench(taken: Job) -> None:
        await job.work(json.loads(taken.payload or b""))

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, queue.shutdown.set)
    await queue.run(**settings)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1], json.loads(sys.argv[2])))
