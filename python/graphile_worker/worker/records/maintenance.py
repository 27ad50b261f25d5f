"""Look after the history of the database, which every worker does."""

from __future__ import annotations

import asyncio
import random

from graphile_worker.log import logger, shown
from graphile_worker.worker.database.protocol import Protocol

#: Seconds between two times, about.
EVERY = 60.0


async def maintain(protocol: Protocol) -> None:
    """Add and drop the history's partitions, and delete what is old, until cancelled."""
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
        await asyncio.sleep(EVERY * random.uniform(0.9, 1.1))
