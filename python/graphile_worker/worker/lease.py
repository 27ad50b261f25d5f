"""The worker's lease: its ids, its heartbeat, and the recovery of dead workers' jobs."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable

from graphile_worker import __version__
from graphile_worker.log import logger
from graphile_worker.worker.database.backoff import Backoff, happens
from graphile_worker.worker.database.protocol import Protocol
from graphile_worker.worker.database.statements import Heartbeat
from graphile_worker.worker.events import Event, Events

#: Seconds between two searches for locks that are older than four hours, as in Node.
STALE_EVERY = 9 * 60.0
#: The first heartbeat that is so many seconds late is worth a warning.
LATE = 3.0


def _clock() -> float:
    """Return seconds that pass while the machine is suspended, too, where the system can tell."""
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Identity:
    """A worker id, and the jobs that it holds."""

    def __init__(self) -> None:
        self.worker_id = f"gw-{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(6)}"
        self.held: set[int] = set()
        #: It was presumed dead: what it held belongs to others.
        self.lost = False


class Lease:
    """Sends heartbeats, and changes the worker's id when it needs a new one.

    A new id is used when the worker was presumed dead, since its jobs may be running elsewhere,
    and when the database may hold jobs in its name that it does not know: when the result of a
    fetch was lost, and when the server was restarted or replaced, since a commit that was not
    waited for may be undone then, and a completed job locked again. Jobs known under an old id are
    still completed under it.

    Jobs are fetched only under an id that ``usable`` returns: one of which the database has heard
    within ``dead_after``, by this machine's clock.
    """

    def __init__(
        self, protocol: Protocol, events: Events, tasks: list[str],
        *, on_lost: Callable[[Identity], None], on_due: Callable[[float], None],
        on_checked: Callable[[bool], None],
    ) -> None:  # fmt: skip
        self._protocol, self._events, self._tasks = protocol, events, tasks
        self._on_lost, self._on_due, self._on_checked = on_lost, on_due, on_checked
        self._details = {"pid": os.getpid(), "host": socket.gethostname(), "version": __version__}
        self.current = Identity()
        self._old: list[Identity] = []
        self._soon = asyncio.Event()
        self._lock = asyncio.Lock()
        self._every, self._dead_after = 10.0, 30.0
        self._last_heartbeat: float | None = None
        #: When the last heartbeat of the current id that was answered had been sent.
        self._known_at: float | None = None
        self._known = asyncio.Event()
        self._closing = False
        #: Whether it was last said that the worker need not be woken.
        self.busy = False
        #: Whether who adds jobs notifies only workers that are not busy.
        self.only_idle = False
        #: How many idle workers run the same tasks, with this one.
        self.fellows = 1
        self._last_stale = time.monotonic()
        self._server_started: float | None = None
        #: Whether the server is another one than before, or has started again.
        self._has_new_server = False
        self._renewing: asyncio.Task[None] | None = None

    @property
    def age(self) -> float | None:
        """Seconds since the last heartbeat that arrived; None: none has."""
        return None if self._last_heartbeat is None else time.monotonic() - self._last_heartbeat

    @property
    def holding(self) -> list[Identity]:
        """The ids under which the worker holds jobs."""
        return [identity for identity in [*self._old, self.current] if identity.held]

    @property
    def held(self) -> int:
        """How many jobs are locked in the worker's names, as far as it knows."""
        return sum(len(identity.held) for identity in [*self._old, self.current])

    async def start(self) -> None:
        """Send the first heartbeat. After it the worker may fetch jobs.

        Raise what no retry can fix, such as missing rights.
        """
        async with self._lock:
            await self._heartbeat(self.current, at_start=True)

    async def usable(self) -> Identity | None:
        """Wait until the database knows the worker's id; return it.

        None: the worker stops in the meantime.
        """
        while not self._closing and not self._is_usable():
            self._known.clear()
            self._soon.set()
            await self._known.wait()
        return None if self._closing else self.current

    def _is_usable(self) -> bool:
        known_at = self._known_at
        return (
            not self.current.lost
            and known_at is not None
            and _clock() - known_at < self._dead_after
        )

    def close(self) -> None:
        """Stop giving out an id for fetching."""
        self._closing = True
        self._known.set()

    async def run(self) -> None:
        """Send heartbeats, until cancelled."""
        backoff = Backoff()
        while True:
            asleep = _clock()
            asked = await happens(self._soon, self._every)
            self._soon.clear()
            late = _clock() - asleep - self._every
            if late > LATE:
                logger.warning(
                    "the heartbeat is %.0f s late: a task blocks the event loop, or the process was"
                    " frozen", late,
                )  # fmt: skip
            try:
                async with self._lock:
                    heartbeat = await self._heartbeat_all()
            except Exception as error:
                await asyncio.sleep(backoff.failed("the heartbeat failed", error))
                continue
            backoff.reset()
            if self._has_new_server:
                self._has_new_server = False
                # Beside the heartbeats, which must not wait for a fetch.
                self._renewing = asyncio.create_task(self._renew_for_server(), name="renew")
            if not asked:  # after a look at the queue
                self._on_checked(heartbeat.is_due)
            await self._free_stale()

    def renew_soon(self) -> None:
        """Send a heartbeat soon, since its result says when the next job is due."""
        if self.age is None or self.age > 1:
            self._soon.set()

    async def set_busy(self, busy: bool) -> None:
        """Tell the database that the worker polls all the time, or that it is idle."""
        async with self._lock:
            self.busy = busy
            await self._heartbeat_all()

    async def replace(self, identity: Identity) -> None:
        """Take a new id, since the result of a fetch under this one was lost."""
        async with self._lock:
            if identity is self.current and not identity.lost:
                await self._renew("the answer to a fetch was lost")

    async def _renew_for_server(self) -> None:
        """Take a new id; what a fetch brings under the old one is known before."""
        async with self._protocol.fetching, self._lock:
            if not self._closing:
                await self._renew("the server was restarted or replaced")

    async def ended(self, identity: Identity) -> None:
        """Take a new id, since the database has ended this one."""
        async with self._lock:
            if identity is self.current:
                await self._presumed_dead()

    async def _presumed_dead(self) -> None:
        await self._abandon(self.current)
        await self._renew("it was presumed dead")

    async def _renew(self, why: str) -> None:
        old, new = self.current, Identity()
        logger.info("worker %s continues as %s: %s", old.worker_id, new.worker_id, why)
        # Nothing is fetched under the old one any more, nor yet under the new one.
        self._known_at, self.current = None, new
        if not old.lost:
            self._old.append(old)
        await self._heartbeat(new)
        if not old.lost:
            await self._settle(old)
        self._emit("worker:lost", old.worker_id, data={"why": why})

    async def _heartbeat(self, identity: Identity, *, at_start: bool = False) -> Heartbeat:
        # No one has to wake an id that fetches no more.
        busy = self.busy or identity in self._old
        sent = _clock()
        heartbeat = await self._protocol.heartbeat(
            identity.worker_id, self._tasks, self._details, busy,
            seconds=max(2.0, self._every), at_start=at_start,
        )  # fmt: skip
        self._last_heartbeat = time.monotonic()
        self.only_idle, self.fellows = heartbeat.only_idle, heartbeat.fellows
        if self._server_started not in (None, heartbeat.server_started):
            self._has_new_server = True
            self._soon.set()
        self._server_started = heartbeat.server_started
        self._every, self._dead_after = min(heartbeat.dead_after / 3, 10.0), heartbeat.dead_after
        if heartbeat.next_job_in is not None:
            self._on_due(heartbeat.next_job_in)
        for worker_id, count in heartbeat.dead:
            logger.warning("worker %s is dead: its %d jobs were unlocked", worker_id, count)
            self._emit("recovered", identity.worker_id, count=count, data={"worker_id": worker_id})
        if identity is self.current and (heartbeat.is_known or self._known_at is None):
            self._known_at = sent
            self._known.set()
        return heartbeat

    async def _heartbeat_all(self) -> Heartbeat:
        heartbeat = await self._heartbeat(self.current)
        if not heartbeat.is_known:
            await self._presumed_dead()
        for old in list(self._old):
            await self._settle(old)
        return heartbeat

    async def _free_stale(self) -> None:
        if time.monotonic() - self._last_stale > STALE_EVERY:
            self._last_stale = time.monotonic()
            if count := await self._protocol.release_stale():
                logger.warning("%d jobs had been locked for four hours and were freed", count)

    async def _settle(self, old: Identity) -> None:
        """Keep an old id alive while it holds jobs; return jobs the worker does not know."""
        if old.held and (await self._heartbeat(old)).is_known:
            await self._protocol.return_unknown(old.worker_id, sorted(old.held))
            return
        self._old.remove(old)
        if old.held:
            await self._abandon(old)
        else:
            await self._protocol.end_worker(old.worker_id)

    async def _abandon(self, identity: Identity) -> None:
        """Stop the jobs of an id that was presumed dead: other workers run them."""
        logger.error(
            "worker %s was presumed dead; its %d jobs are stopped, others run them",
            identity.worker_id, len(identity.held),
        )  # fmt: skip
        identity.lost = True
        self._on_lost(identity)
        await self._protocol.end_worker(identity.worker_id)

    async def stop(self) -> None:
        """End every id and return the jobs that it holds."""
        if self._renewing is not None:
            self._renewing.cancel()
        # Kept for good: a heartbeat that came after would be one of a worker that has left.
        await self._lock.acquire()
        for identity in [*self._old, self.current]:
            if count := await self._protocol.end_worker(identity.worker_id):
                logger.warning("%d jobs of %s were returned", count, identity.worker_id)
            identity.held.clear()
        self._old.clear()

    def _emit(self, name: str, worker_id: str, **more: object) -> None:
        if self._events.wanted(name):
            self._events.emit(Event(name, worker_id, **more))  # type: ignore[arg-type]
