"""Write how far running jobs are, once a second at most."""

from __future__ import annotations

import asyncio

from graphile_worker.log import logger, shown
from graphile_worker.worker.context import Context
from graphile_worker.worker.database.protocol import Protocol

#: Seconds between two writes of the progress of a job.
WRITE_EVERY = 1.0

Report = tuple[int, float | None, str | None]


class Progress:
    """Collects what running tasks report, and writes the latest of each job.

    Progress is for people who watch: what cannot be written is left out.
    """

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        #: By worker id and job.
        self._reports: dict[str, dict[int, Report]] = {}
        self._some = asyncio.Event()

    def report(self, context: Context, fraction: float | None, message: str | None) -> None:
        """Take note of how far a job is. To be called in the worker's loop."""
        job = context.job
        self._reports.setdefault(job.locked_by, {})[job.id] = (job.id, fraction, message)
        self._some.set()

    def forget(self, job_id: int) -> None:
        """Do not write of a job that has ended."""
        for reports in self._reports.values():
            reports.pop(job_id, None)

    async def run(self) -> None:
        """Write, until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            reports, self._reports = self._reports, {}
            for worker_id, of_worker in reports.items():
                try:
                    if of_worker:
                        await self._protocol.report_progress(worker_id, list(of_worker.values()))
                except Exception as error:
                    logger.warning("progress could not be written: %s", shown(error))
            await asyncio.sleep(WRITE_EVERY)
