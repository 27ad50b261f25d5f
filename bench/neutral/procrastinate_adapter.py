"""Procrastinate on the neutral stage."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version
from typing import Any

import procrastinate
import psycopg
from contract import Adapter, Settings


class Procrastinate(Adapter):
    """Its worker with as many jobs at once, and batches of deferred jobs."""

    system, version = "procrastinate", version("procrastinate")
    event_tables = ("procrastinate_jobs", "procrastinate_events")

    async def prepare(self) -> None:
        size = self.settings.workers + 4
        self._app = app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(
                conninfo=self.settings.url, min_size=4, max_size=min(size, 100)
            )
        )

        @app.task(name="bench")
        async def bench(payload: dict[str, Any]) -> None:
            await self.run(payload)

        self._task = bench
        await app.open_async()
        async with await psycopg.AsyncConnection.connect(self.settings.url) as conn:
            cursor = await conn.execute("select to_regclass('procrastinate_jobs')")
            is_there = await cursor.fetchone() != (None,)
        if not is_there:
            await app.schema_manager.apply_schema_async()

    async def enqueue(self, payloads: list[dict[str, Any]]) -> None:
        given: list[Any] = [{"payload": payload} for payload in payloads]
        await self._task.batch_defer_async(*given)

    async def work(self) -> None:
        await self._app.run_worker_async(
            concurrency=self.settings.workers, delete_jobs="always", install_signal_handlers=False,
            shutdown_graceful_timeout=1.0,
        )  # fmt: skip

    async def count_waiting(self) -> int:
        async with await psycopg.AsyncConnection.connect(self.settings.url) as conn:
            cursor = await conn.execute(
                "select count(*) from procrastinate_jobs where status = 'todo'"
            )
            ((count,),) = await cursor.fetchall()
        return int(count)


if __name__ == "__main__":
    sys.exit(asyncio.run(Procrastinate(Settings()).main()))
