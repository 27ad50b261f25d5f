"""Stop jobs that were cancelled, and return prefetched ones whose task or queue is paused."""

from __future__ import annotations

import asyncio

from graphile_worker.errors import JobCancelled
from graphile_worker.worker.database.backoff import Backoff, happens
from graphile_worker.worker.database.protocol import Protocol
from graphile_worker.worker.fetcher import Fetcher
from graphile_worker.worker.jobs import RunningJobs
from graphile_worker.worker.lease import Identity, Lease

#: Seconds between two questions about the jobs held where no notification comes.
REVIEW_EVERY = 10.0
#: Seconds between two of them where notifications do: anybody can send those.
REVIEW_PAUSE = 0.2


class Reviewer:
    """Asks the database what to do with the jobs that the worker holds, and does it."""

    def __init__(
        self, protocol: Protocol, lease: Lease, runs: RunningJobs, fetcher: Fetcher
    ) -> None:
        self._protocol, self._lease = protocol, lease
        self._runs, self._fetcher = runs, fetcher
        self._soon = asyncio.Event()

    def review_soon(self) -> None:
        """Ask soon: somebody says that something has changed."""
        self._soon.set()

    async def run(self) -> None:
        """Ask after each notification, and now and then without one, until cancelled."""
        backoff = Backoff()
        while True:
            await happens(self._soon, REVIEW_EVERY)
            self._soon.clear()
            try:
                for identity in self._lease.holding:
                    await self._review(identity)
            except Exception as error:
                self._soon.set()
                await asyncio.sleep(backoff.failed("asking for cancelled jobs failed", error))
            else:
                backoff.reset()
                await asyncio.sleep(REVIEW_PAUSE)

    async def _review(self, identity: Identity) -> None:
        prefetched = self._fetcher.prefetched(identity)
        verdicts = await self._protocol.review(identity.worker_id, prefetched)
        for job_id, verdict, reason, by in verdicts:
            if verdict == "cancelled":
                self._runs.cancel_job(identity, job_id, JobCancelled(by, reason))
        leave = {job_id for job_id, *_ in verdicts}
        await self._fetcher.return_paused(identity, leave)
