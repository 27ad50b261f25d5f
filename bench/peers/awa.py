"""Awa, a queue in Rust that Python fills and whose workers call Python."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from peers import job
from peers.base import Peer

if TYPE_CHECKING:
    import psycopg


class Awa(Peer):
    """Awa with its queue storage."""

    template = "awa"
    # Its view of all jobs takes a minute to tell: 1 if there are more jobs than completed ones.
    jobs = """(
  select 1 as id where (select count(*) from awa.ready_entries)
    > (select coalesce(sum(completed_count), 0) from awa.receipt_completion_batches)
    + (select count(*) from awa.done_entries)
) as jobs"""

    def prepare(self, dsn: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "awa", "--database-url", _url(dsn), "migrate"],
            check=True, timeout=60, capture_output=True,
        )  # fmt: skip
        import awa

        client = awa.Client(_url(dsn))
        client.install_queue_storage()
        client.close()

    def load(self, conn: psycopg.Connection[Any], count: int, payload: dict[str, Any]) -> None:
        import awa

        client = awa.Client(_url(conn.info.dsn))
        client.enqueue_many_copy([payload] * count, kind="bench", queue="bench")
        client.close()


async def main(dsn: str, settings: dict[str, Any]) -> None:
    import awa

    client = awa.AsyncClient(_url(dsn), max_connections=20)

    @client.task(dict, kind="bench", queue="bench")
    async def bench(taken: awa.Job[dict[str, Any]]) -> None:
        await job.work(taken.args)

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await client.start([{"name": "bench", **settings}])
    await stop.wait()
    await client.shutdown()


def _url(dsn: str) -> str:
    parts = dict(part.split("=") for part in dsn.split())
    return "postgres://{user}@{host}:{port}/{dbname}".format(**parts)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
