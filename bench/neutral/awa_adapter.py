"""Awa on the neutral stage, with its queue storage."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import awa
import psycopg
from contract import Adapter, Settings
from systems import SYSTEMS


class Awa(Adapter):
    """Awa's worker as its documentation shows it, and its fastest way to enqueue."""

    system, version = "awa", version("awa-pg")
    event_tables = ("awa.ready_entries", "awa.done_entries")

    async def prepare(self) -> None:
        command = [sys.executable, "-m", "awa", "--database-url", self.settings.url, "migrate"]
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
        client = awa.Client(self.settings.url)
        await asyncio.to_thread(client.install_queue_storage)
        client.close()
        self._client = awa.AsyncClient(
            self.settings.url, max_connections=max(20, self.settings.workers // 4)
        )

    async def enqueue(self, payloads: list[dict[str, Any]]) -> None:
        await self._client.enqueue_many_copy(payloads, kind="bench", queue="bench")

    async def work(self) -> None:
        @self._client.task(dict, kind="bench", queue="bench")
        async def bench(job: awa.Job[dict[str, Any]]) -> None:
            await self.run(job.args)

        await self._client.start([
            {
                "name": "bench", "max_workers": self.settings.workers, "claimers": 2,
                "claim_batch_size": 500,
            }
        ])  # fmt: skip
        try:
            await asyncio.Event().wait()
        finally:
            await self._client.shutdown()

    async def count_waiting(self) -> int:
        async with await psycopg.AsyncConnection.connect(self.settings.url) as conn:
            ((count,),) = await (await conn.execute(SYSTEMS["awa"].encode())).fetchall()
        return max(0, int(count))


if __name__ == "__main__":
    sys.exit(asyncio.run(Awa(Settings()).main()))
