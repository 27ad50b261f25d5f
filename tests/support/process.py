"""A worker process that writes down what it runs: `python process.py DSN SECONDS [polls]`.

SECONDS is how long a job takes whose payload does not say. The task "note" writes to public.ran,
"say" to the standard output, which needs no server. With "polls" it suits an old pgbouncer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from typing import Any

from graphile_worker.worker import Context, run


async def pause(payload: Any) -> None:
    await asyncio.sleep(payload.get("seconds", float(sys.argv[2])))


async def note(payload: Any, context: Context) -> None:
    job = context.job
    failing = job.attempts == 1 and payload.get("fails_once", False)
    async with context.connection() as conn:
        await conn.execute(
            "insert into public.ran (job_id, attempt, task, payload, queue_name, by, worker, failed)"
            " values (%s, %s, 'note', %s, %s, 'python', %s, %s)",
            (job.id, job.attempts, json.dumps(payload), job.queue_name, job.locked_by, failing),
        )
    await pause(payload)
    async with context.connection() as conn:
        await conn.execute(
            "update public.ran set ended = clock_timestamp()"
            " where job_id = %s and worker = %s and ended is null",
            (job.id, job.locked_by),
        )
    if failing:
        raise ValueError("the first attempt fails")


async def say(payload: Any, context: Context) -> None:
    job, started = context.job, time.time()
    await pause(payload)
    run = [job.id, job.attempts, job.queue_name, job.locked_by, started, time.time()]
    print(json.dumps(run), flush=True)


async def block(payload: Any) -> None:
    """Block the event loop, and with it the heartbeat."""
    time.sleep(payload["seconds"])


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
    polls = {"listen": False, "prepare": False} if sys.argv[3:] else {}
    tasks = {"note": note, "say": say, "block": block}
    asyncio.run(run(tasks, dsn=sys.argv[1], concurrency=4, poll_interval=1, **polls))
