"""Forks a worker for each line that it reads, and prints its process id: `python payer.py DSN`.

The workers run tasks whose two effects and whose completion are one transaction.
"""

from __future__ import annotations

import asyncio
import os
import sys

from graphile_worker import Tasks
from graphile_worker.worker import context, run

tasks = Tasks()
EFFECT = "insert into public.effects values (%s, %s)"


@tasks.task("pay", transaction=True)
async def pay() -> str:
    conn, job = context().transaction, context().job.id
    await conn.execute(EFFECT, [job, "first"])
    await asyncio.sleep(0.001)
    await conn.execute(EFFECT, [job, "second"])
    return "paid"


@tasks.task("pay_in_thread", transaction=True)
def pay_in_thread() -> str:
    conn, job = context().transaction, context().job.id
    conn.execute(EFFECT, [job, "first"])
    conn.execute(EFFECT, [job, "second"])
    return "paid"


def main() -> None:
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            asyncio.run(run(tasks, dsn=sys.argv[1], concurrency=2, poll_interval=0.2))
            os._exit(0)
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("gone", flush=True)


if __name__ == "__main__":
    main()
