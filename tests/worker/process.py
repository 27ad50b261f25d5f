"""A worker process that writes down what it runs: `python process.py DSN SECONDS`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import psycopg
from graphile_worker.worker import Context, run


async def note(payload: Any, context: Context) -> None:
    job = context.job
    async with context.connection() as conn:
        await conn.execute(
            "insert into public.ran (job_id, worker, queue_name) values (%s, %s, %s)",
            (job.id, job.locked_by, job.queue_name),
        )
    await asyncio.sleep(float(sys.argv[2]))
    async with context.connection() as conn:
        await conn.execute(
            "update public.ran set ended = clock_timestamp() where job_id = %s and worker = %s",
            (job.id, job.locked_by),
        )


def prepare(dsn: str) -> None:
    """Make the table that the task writes to."""
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "create table public.ran (job_id bigint, worker text, queue_name text,"
            " started timestamptz default clock_timestamp(), ended timestamptz)"
        )


if __name__ == "__main__":
    asyncio.run(run({"note": note}, dsn=sys.argv[1], concurrency=4, poll_interval=1))
