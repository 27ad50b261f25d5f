"""Look after the history of the database, which every worker does."""

from __future__ import annotations

import asyncio
import random

from graphile_worker.log import logger, shown
from graphile_worker.worker.database.protocol import Protocol
from graphile_worker.worker.lease import Lease

#: Seconds between two times, about, and how many workers at most take turns: each of them may end.
EVERY, MOST_TURNS = 60.0, 10


async def maintain(protocol: Protocol, lease: Lease) -> None:
    """Add and drop the history's partitions, and delete what is old, until cancelled.

    The lease knows how many workers do the same.
    """
    while True:
        try:
            dropped, deleted, failed = await protocol.maintain_history()
        except Exception as error:
            logger.warning("looking after the history failed: %s", shown(error))
        else:
            if dropped or deleted or failed:
                logger.info(
                    "history: dropped %d partitions, deleted %d rows and %d failed jobs",
                    dropped, deleted, failed,
                )  # fmt: skip
        turns = min(max(1, lease.fellows // 2), MOST_TURNS)
        await asyncio.sleep(EVERY * turns * random.uniform(0.9, 1.1))
