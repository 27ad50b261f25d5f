"""graphile_worker on the neutral stage."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import psycopg
from contract import Adapter, Settings
from graphile_worker import JobSpec, __version__
from graphile_worker.aio import WorkerUtils
from graphile_worker.worker import Worker


class GraphileWorker(Adapter):
    """The Python worker with its defaults, and a producer that calls add_jobs."""

    system, version = "graphile_worker", __version__
    event_tables = ("graphile_worker._private_jobs",)

    async def prepare(self) -> None:
        url = self.settings.url
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
            await conn.execute("create extension if not exists graphile_worker")
        self._utils = await WorkerUtils(url).__aenter__()

    async def enqueue(self, payloads: list[dict[str, Any]]) -> None:
        await self._utils.add_jobs([JobSpec("bench", payload) for payload in payloads])

    async def work(self) -> None:
        worker = Worker(
            {"bench": self.run}, dsn=self.settings.url, concurrency=self.settings.workers
        )
        running = asyncio.ensure_future(worker.run())
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            worker.stop_now()
            await running

    async def count_waiting(self) -> int:
        async with await psycopg.AsyncConnection.connect(self.settings.url) as conn:
            cursor = await conn.execute(
                "select count(*) from graphile_worker.jobs where is_available"
            )
            ((count,),) = await cursor.fetchall()
        return int(count)


if __name__ == "__main__":
    sys.exit(asyncio.run(GraphileWorker(Settings()).main()))
