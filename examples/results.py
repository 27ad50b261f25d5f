"""A hundred jobs, a progress bar, and their results, as one would write it in a notebook.

Run it with `python examples/results.py`. It starts a private server and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import random

import psycopg
from graphile_worker.aio import Tasks, WorkerUtils
from graphile_worker.client.records.utils_aio import JobHandle
from graphile_worker.testing.embedded import Server
from graphile_worker.worker import Worker, context
from rich.progress import Progress

JOBS = 100

tasks = Tasks()


@tasks.task("square")
async def square(n: int) -> int:
    for step in range(5):
        context().progress(step / 5, f"{step} of 5")
        await asyncio.sleep(random.uniform(0.01, 0.03))
    return n * n


async def main() -> None:
    with Server() as server:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            conn.execute("create extension graphile_worker")
        async with WorkerUtils(server.dsn()) as utils:
            await utils.keep_history("square")
            jobs = await utils.add_jobs([("square", {"n": n}) for n in range(JOBS)])

            worker = Worker(tasks, dsn=server.dsn(), concurrency=10)
            working = asyncio.create_task(worker.run())

            async def follow(handle: JobHandle) -> int:
                result: int = await handle.result(timeout=60)
                progress.advance(bar)
                return result

            with Progress() as progress:
                bar = progress.add_task("squaring", total=JOBS)
                results = await asyncio.gather(*(follow(utils.handle(job)) for job in jobs))
            print(*results)

            worker.stop()
            await working


if __name__ == "__main__":
    asyncio.run(main())
