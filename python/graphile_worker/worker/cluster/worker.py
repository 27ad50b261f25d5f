"""One worker for several databases, which come and go."""

from __future__ import annotations

import asyncio
from typing import Any

from graphile_worker.errors import InvalidArgument, StopIncomplete
from graphile_worker.log import logger, shown
from graphile_worker.worker.cluster.members import Members, place_of
from graphile_worker.worker.database.backoff import Backoff, happens
from graphile_worker.worker.database.failures import is_hopeless
from graphile_worker.worker.options import WorkerOptions
from graphile_worker.worker.worker import Health, Shared, Worker


class ClusterWorker:
    """Runs the jobs of several databases, at most ``concurrency`` of all together at once.

    >>> worker = ClusterWorker(tasks, ListedMembers(["host=a", "host=b"]), concurrency=20)
    >>> await worker.run()

    Each database has a worker of its own, with its own connections, heartbeat and errors: one that
    is away keeps the others from nothing, and is used again as soon as it is back. Recurring jobs
    of the tasks and the crontab are added to the first database.
    """

    def __init__(
        self, tasks: Any, members: Members, *, once: bool = False, **settings: Any
    ) -> None:
        if settings.get("listen_dsn"):
            raise InvalidArgument("listen_dsn leads to one database: leave it out for several")
        self.options = WorkerOptions(**settings)
        self.events = self.options.events
        self._settings, self._members, self._once = settings, members, once
        self._shared = Shared(tasks, self.options)
        self._workers: dict[str, Worker] = {}
        self._serving: dict[str, asyncio.Task[None]] = {}
        #: The databases to serve now; one that has gone may still be ending its jobs.
        self._wanted: set[str] = set()
        self._problems: dict[str, str] = {}
        self._stop = asyncio.Event()
        self._incomplete: list[StopIncomplete] = []

    # --- asked from outside

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Fetch no more jobs, return those not started, and wait for the others for the grace."""
        self._stop.set()
        for worker in self._workers.values():
            worker.stop()

    def stop_now(self) -> None:
        """Stop, and fail the jobs that are running."""
        self._stop.set()
        for worker in self._workers.values():
            worker.stop_now()

    def health(self) -> Health:
        """Return the health of all: ok as long as one database is served."""
        parts = {place_of(dsn): worker.health() for dsn, worker in self._workers.items()}
        begun = {it for it, part in parts.items() if part.last_heartbeat_seconds_ago is not None}
        problems = [f"{it}: {text}" for it, text in self._problems.items() if it not in begun]
        problems += [f"{it}: {text}" for it in begun for text in parts[it].problems]
        listening = {part.listening for part in parts.values()} - {None}
        return Health(
            any(part.ok for part in parts.values()),
            all(listening) if listening else None,
            _least(part.last_fetch_seconds_ago for part in parts.values()),
            _least(part.last_heartbeat_seconds_ago for part in parts.values()),
            self.is_stopping,
            sum(part.running for part in parts.values()),
            sum(part.prefetched for part in parts.values()),
            problems,
            parts,
        )

    # --- the whole life

    async def run(self) -> None:
        """Run until stopped, or until nothing is due in any database with ``once``.

        Raise what no retry can fix when it starts, of any database; later such a database is
        retried, as one that is away. Raise StopIncomplete where a database did not hear of
        everything before the worker had to leave.
        """
        try:
            dsns = list(await self._members.current())
            if self._once:
                await self._run_once(dsns)
            else:
                await self._follow(dsns)
        except asyncio.CancelledError:
            for task in self._serving.values():
                task.cancel()
            raise
        finally:
            self.stop()
            await asyncio.gather(*self._serving.values(), return_exceptions=True)
            await self._shared.close()
        if self._incomplete:
            raise self._incomplete[0]

    async def _run_once(self, dsns: list[str]) -> None:
        """Run what is due everywhere, until a whole round has found nothing."""
        started = -1
        while started != self._shared.places.started and not self.is_stopping:
            started = self._shared.places.started
            for dsn in dsns:
                self._workers[dsn] = self._worker(dsn, is_first=dsn == dsns[0])
            runs = [worker.run() for worker in self._workers.values()]
            for ended in await asyncio.gather(*runs, return_exceptions=True):
                if ended is not None:
                    raise ended

    async def _follow(self, dsns: list[str]) -> None:
        stopped = asyncio.ensure_future(self._stop.wait())
        self._wanted = set(dsns)
        try:
            for dsn in dsns:
                self._serve(dsn, is_first=dsn == dsns[0], is_start=True)
            while not self._stop.is_set():
                timeout = self._members.poll_every
                await asyncio.wait(
                    {stopped, *self._serving.values()}, timeout=timeout,
                    return_when="FIRST_COMPLETED",
                )  # fmt: skip
                self._raise_failed()
                if timeout is not None and not self._stop.is_set():
                    await self._refresh()
        finally:
            stopped.cancel()

    def _raise_failed(self) -> None:
        for dsn, task in list(self._serving.items()):
            if task.done():
                del self._serving[dsn]
                task.result()

    async def _refresh(self) -> None:
        """Serve databases that have come, and no more those that have gone."""
        try:
            dsns = list(await self._members.current())
        except Exception as error:
            logger.warning("the list of databases cannot be read: %s", shown(error))
            return
        self._wanted = set(dsns)
        for dsn in dsns:
            if dsn not in self._serving:
                logger.info("%s has come: its jobs are run", place_of(dsn))
                self._serve(dsn, is_first=dsn == dsns[0], is_start=False)
        for dsn in self._workers.keys() - self._wanted:
            if not self._workers[dsn].is_stopping:
                logger.info("%s has gone: its jobs are run no more", place_of(dsn))
                self._workers[dsn].stop()

    def _serve(self, dsn: str, *, is_first: bool, is_start: bool) -> None:
        self._serving[dsn] = asyncio.get_running_loop().create_task(
            self._keep(dsn, is_first, is_start), name=f"serve {place_of(dsn)}"
        )

    async def _keep(self, dsn: str, is_first: bool, is_start: bool) -> None:
        """Serve a database until the worker stops, or the database has gone."""
        backoff, place = Backoff(first=1.0, cap=30.0), place_of(dsn)
        while dsn in self._wanted and not self._stop.is_set():
            worker = self._workers[dsn] = self._worker(dsn, is_first)
            try:
                await worker.run()
                break
            except StopIncomplete as error:
                self._incomplete.append(error)
                break
            except Exception as error:
                if is_start and is_hopeless(error):
                    raise
                self._problems[place] = shown(error)
                del self._workers[dsn]
                await happens(self._stop, backoff.failed(f"{place} cannot be used", error))
            is_start = False
        self._problems.pop(place, None)
        self._workers.pop(dsn, None)

    def _worker(self, dsn: str, is_first: bool) -> Worker:
        return Worker(
            None, once=self._once, shared=self._shared, is_recurring=is_first,
            **{**self._settings, "dsn": dsn},
        )  # fmt: skip


AnyWorker = Worker | ClusterWorker


def _least(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return min(known) if known else None
