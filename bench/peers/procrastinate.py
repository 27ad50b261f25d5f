"""Procrastinate, which deletes its jobs here as the others do."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from peers import job
from peers.base import Peer


class Procrastinate(Peer):
    """Procrastinate with psycopg; it takes one job at a time and has no batches."""

    template = "procrastinate"
    jobs = "procrastinate_jobs"
    insert = """insert into procrastinate_jobs (queue_name, task_name, args)
select 'default', 'bench', jsonb_build_object('payload', %(payload)s::jsonb)
from generate_series(1, %(count)s)"""

    def prepare(self, dsn: str) -> None:
        import procrastinate

        app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=dsn))
        with app.open():
            app.schema_manager.apply_schema()


async def main(dsn: str, settings: dict[str, Any]) -> None:
    import procrastinate

    pool = settings["concurrency"] + 2
    app = procrastinate.App(
        connector=procrastinate.PsycopgConnector(conninfo=dsn, max_size=pool, min_size=pool)
    )

    @app.task(name="bench")
    async def bench(payload: dict[str, Any]) -> None:
        await job.work(payload)

    async with app.open_async():
        await app.run_worker_async(delete_jobs="always", **settings)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
