"""Fetch jobs when there is room for them and some may be due; return those that did not start."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import Container
from typing import Any

from graphile_worker.errors import InvalidConnection
from graphile_worker.log import logger, shown
from graphile_worker.worker.cluster.places import Places
from graphile_worker.worker.completer import Completer
from graphile_worker.worker.database.backoff import Backoff, happens
from graphile_worker.worker.database.connections import Row
from graphile_worker.worker.database.failures import WORKER_ENDED, is_hopeless, is_uncertain
from graphile_worker.worker.database.protocol import Protocol
from graphile_worker.worker.database.waking import Waking
from graphile_worker.worker.events import Event
from graphile_worker.worker.jobs import RunningJobs
from graphile_worker.worker.lease import Identity, Lease
from graphile_worker.worker.options import WorkerOptions

#: No more jobs are prefetched than this by default.
MAX_PREFETCH = 750
#: Taken ahead is what runs in about so many seconds.
PREFETCH_SECONDS = 0.25
#: Seconds until an idle worker looks again; doubled after each look.
FIRST_POLL = 1.0
#: Seconds without a pause after which a worker says that it is busy if its polls brought so many
#: jobs each, and so often it counts them; with fewer than FEW it says that it sleeps. Then jobs
#: start earlier if each notifies.
BUSY_AFTER, ENOUGH, FEW = 0.1, 2, 3
#: A pause, in seconds: so often looks a worker that no one wakes. Also the first wait for those
#: who added jobs before it said that it sleeps, and the longest such wait.
PAUSE, LONGEST_PAUSE = 0.002, 0.25


class Fetcher:
    """Fetches and prefetches jobs for a worker.

    An idle worker looks after one second, two, four and so on up to the poll interval, and at
    once when ``wake`` or ``wake_in`` says so; when a heartbeat has looked for it, it need not. With
    ``once`` it ends when nothing is due.

    Unless ``graphile_worker.notify`` is set otherwise, only idle workers are notified. One that is
    kept awake says so, and looks by itself from then on. When it finds few jobs it says that it
    sleeps, and watches the transactions that may have added jobs before they knew.
    """

    def __init__(
        self, protocol: Protocol, lease: Lease, runs: RunningJobs, completer: Completer,
        options: WorkerOptions, names: list[str], places: Places, *, once: bool,
    ) -> None:  # fmt: skip
        self._protocol, self._lease = protocol, lease
        self._runs, self._completer = runs, completer
        self._options, self._names, self._places, self._once = options, names, places, once
        self._queue: deque[tuple[Row, Identity, float]] = deque()
        self._wake, self._room, self._stop = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._due_timer: asyncio.TimerHandle | None = None
        self.waking = Waking(
            names, wake=self._wake.set, load=lambda: 1 - places.free / places.most,
            fellows=lambda: lease.fellows, has_forbidden_flags=bool(options.forbidden_flags),
        )  # fmt: skip
        #: When it was last known what is due, by the monotonic clock.
        self.last_fetch: float | None = None
        self._poll = self._is_starting = False
        self._count_anew()
        self._open_writers: list[str] = []
        self._pause = PAUSE
        #: Whether the last fetch left jobs that a limit or a pause may hold back.
        self.is_limited = False

    def __len__(self) -> int:
        """How many jobs are fetched and have not started."""
        return len(self._queue)

    def wake(self) -> None:
        """Fetch now."""
        self._wake.set()

    def checked_by_heartbeat(self, is_due: bool) -> None:
        """Fetch if the heartbeat found a due job; otherwise skip the next poll."""
        if is_due:
            self._poll = True
            self._wake.set()
        else:
            self.last_fetch = time.monotonic()

    def wake_in(self, seconds: float) -> None:
        """Fetch after this many seconds, when a job is due."""
        loop = asyncio.get_running_loop()
        at = loop.time() + seconds + 0.001
        timer = self._due_timer
        if timer is not None:
            if loop.time() < timer.when() <= at:
                return
            timer.cancel()
        self._due_timer = loop.call_at(at, self._wake.set)

    def stop(self) -> None:
        """Fetch and start no more."""
        for it in (self._stop, self._wake, self._room):
            it.set()
        self._lease.close()

    def close(self) -> None:
        """Cancel the timers."""
        self._places.leave(self)
        self.waking.cancel()
        if self._due_timer is not None:
            self._due_timer.cancel()

    @property
    def running(self) -> int:
        """How many jobs run."""
        return len(self._runs)

    @property
    def waiting(self) -> int:
        """How many jobs may start."""
        return 0 if self._stop.is_set() else len(self._queue)

    def start(self, most: int) -> int:
        """Start jobs until ``most`` run, but no more than that; return how many were started."""
        started, runs, queue = 0, self._runs, self._queue
        while queue and len(runs) < most and started < most and not self._stop.is_set():
            row, identity, _ = queue.popleft()
            if not identity.lost:  # else it was given to others
                runs.start(row, identity)
                started += 1
        self._room.set()
        return started

    async def run(self) -> None:
        """Fetch jobs until stopped, whatever goes wrong in the meantime.

        Raise InvalidConnection where the connection itself is of no use, and with ``once`` what no
        time heals.
        """
        backoff, more, idle = Backoff(), True, FIRST_POLL
        while not self._stop.is_set():
            try:
                if not more:
                    woken = await self._sleep(idle)
                    idle = FIRST_POLL if woken and not self._poll else idle * 2
                    self._poll = False
                await self._wait_for_room()
                # With nothing under way, a fetch that brings nothing is the last one.
                is_quiet = self._is_quiet()
                fetched, more = await self._fetch_round(backoff)
                # A slot may have become free in the moment in which it was looked for.
                if fetched or self.is_limited:
                    idle = FIRST_POLL
                if self._once and is_quiet and self._is_quiet() and not (fetched or more):
                    return
            except Exception as error:
                if isinstance(error, InvalidConnection) or (self._once and is_hopeless(error)):
                    raise
                wait = backoff.failed("fetching jobs failed", error)
                await happens(self._stop, wait)
                more = True

    def _is_quiet(self) -> bool:
        return not (self._runs or self._queue or self._completer.pending)

    async def _wait_for_room(self) -> None:
        while self._want() <= 0 and not self._stop.is_set():
            self._room.clear()
            await self._return_expired()
            await happens(self._room, self._options.prefetch_ttl if self._queue else None)

    async def _fetch_round(self, backoff: Backoff) -> tuple[int, bool]:
        """Fetch once; return how many jobs came, and whether to fetch again at once."""
        flags = await self._forbidden()
        identity = await self._lease.usable()
        if self._stop.is_set() or identity is None:
            return 0, True
        self._wake.clear()
        async with self._protocol.fetching:
            fetched, more = await self._fetch(identity, max(self._want(), 1), flags, backoff)
        await asyncio.sleep(0)  # the jobs come before the books
        backoff.reset()
        if not more:
            self._lease.renew_soon()
        if (self._lease.only_idle or self._lease.busy) and not self._once:
            more = await self._announce(fetched) or more
        return fetched, more

    async def _announce(self, fetched: int) -> bool:
        """Tell the database when the worker becomes busy or idle; return whether to fetch now."""
        self._polls += 1
        self._found += fetched
        if time.monotonic() - self._counted_since <= BUSY_AFTER:
            return False
        each = self._found / self._polls
        self._count_anew()
        if self._lease.busy and (each < FEW or not self._lease.only_idle):
            await self._lease.set_busy(busy=False)
            self._open_writers = await self._protocol.writing_transactions()
            self._pause = PAUSE
            return True
        if not self._lease.busy and each >= ENOUGH:
            await self._lease.set_busy(busy=True)
            self._open_writers = []
            self._count_anew()
        return False

    def _count_anew(self) -> None:
        """Count polls and what they bring from now on."""
        self._counted_since, self._polls, self._found = time.monotonic(), 0, 0

    async def _sleep(self, idle: float) -> bool:
        """Wait until it is time to fetch; return False where only the poll interval ended."""
        if self._lease.busy:
            await happens(self._wake, PAUSE)
            return True
        if self._open_writers:
            if not await happens(self._wake, self._pause):
                self._count_anew()
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._open_writers = await self._protocol.writing_transactions(self._open_writers)
            return True
        asleep = time.monotonic()
        woken = await self._until_woken(idle)
        if time.monotonic() - asleep > PAUSE:
            self._count_anew()
        return woken

    async def _until_woken(self, idle: float) -> bool:
        poll_interval = self._options.poll_interval
        while not (woken := await happens(self._wake, min(idle, poll_interval))):
            assert self.last_fetch is not None  # a fetch came before
            if idle < poll_interval or time.monotonic() - self.last_fetch > poll_interval:
                break
        return woken

    def _prefetch(self) -> int:
        """Return how many jobs to hold beyond those that run."""
        if self._options.prefetch is not None:
            return self._options.prefetch
        if self._runs.average is None:
            return 0
        seconds_each = max(self._runs.average, 1e-6)
        return min(MAX_PREFETCH, int(PREFETCH_SECONDS * self._places.share(self) / seconds_each))

    def _want(self) -> int:
        """Return how many jobs to ask for now."""
        prefetch, waiting = self._prefetch(), len(self._queue)
        if (free := self._places.wanted(self)) > 0:
            return free + prefetch
        # Two thirds are left when the rest is asked for: they run while it comes.
        return prefetch - waiting if waiting <= 2 * prefetch // 3 else 0

    async def _forbidden(self) -> list[str] | None:
        flags: Any = self._options.forbidden_flags
        if callable(flags):
            flags = flags()
            if inspect.isawaitable(flags):
                flags = await flags
        return list(flags) if flags else None

    async def _fetch(
        self, identity: Identity, want: int, flags: list[str] | None, backoff: Backoff
    ) -> tuple[int, bool]:
        """Fetch jobs once; return how many, and whether there may be more."""
        started = time.perf_counter()
        try:
            tell = self.waking.to_tell()
            fetched = await self._protocol.fetch(identity.worker_id, want, self._names, flags, tell)
            if tell is not None and fetched.has_told:
                self.waking.told(tell)
        except Exception as error:
            if getattr(error, "sqlstate", None) == WORKER_ENDED:
                await self._lease.ended(identity)
            elif is_uncertain(error):
                backoff.failed("fetching jobs failed", error)
                await self._lease.replace(identity)
            raise
        self.is_limited = fetched.is_limited
        if fetched.again_in is not None:
            self.wake_in(fetched.again_in)
        await self._received(fetched.rows, identity, time.perf_counter() - started)
        return len(fetched.rows), fetched.more

    async def _received(self, rows: list[Row], identity: Identity, seconds: float) -> None:
        self.last_fetch = now = time.monotonic()
        if identity.lost:  # what came is others' to run
            await self._return_jobs([(row, identity, now) for row in rows])
            return
        ids = {row[0] for row in rows}
        for again in ids & identity.held:
            # It was free: it was given away, or what became of it is written.
            self._completer.forget(again)
            self._runs.fetched_again(again)
        identity.held |= ids
        self._queue.extend([(row, identity, now) for row in rows])
        if rows:
            events = self._options.events
            if events.wanted("fetch"):
                events.emit(Event("fetch", identity.worker_id, count=len(rows), seconds=seconds))
            self._places.start()

    async def return_jobs(self) -> None:
        """Return all jobs that have not started."""
        queued = list(self._queue)
        self._queue.clear()
        await self._return_jobs(queued)

    def prefetched(self, identity: Identity) -> list[int]:
        """Return the ids of the jobs that have not started, of those held under this id."""
        return [row[0] for row, holder, _ in self._queue if holder is identity]

    async def return_paused(self, identity: Identity, ids: Container[int]) -> None:
        """Return those of the jobs that have not started: they are paused."""
        paused = [each for each in self._queue if each[1] is identity and each[0][0] in ids]
        for each in paused:
            self._queue.remove(each)
        if paused:
            logger.info("%d prefetched jobs are paused and are returned", len(paused))
            await self._return_jobs(paused)

    async def _return_expired(self) -> None:
        """Return prefetched jobs that have waited for too long."""
        limit = time.monotonic() - self._options.prefetch_ttl
        old = []
        while self._queue and self._queue[0][2] < limit:
            old.append(self._queue.popleft())
        if old:
            logger.info("%d prefetched jobs did not start in time and are returned", len(old))
            await self._return_jobs(old)

    async def _return_jobs(self, queued: list[tuple[Row, Identity, float]]) -> None:
        by_identity: dict[Identity, list[int]] = {}
        for row, identity, _ in queued:
            by_identity.setdefault(identity, []).append(row[0])
        for identity, ids in by_identity.items():
            try:
                await self._protocol.return_jobs(identity.worker_id, ids)
            except Exception as error:  # other transactions hold some of them
                logger.warning("returning %d jobs failed, and is retried: %s",
                    len(ids), shown(error),
                )  # fmt: skip
                if not identity.lost:
                    mine = [each for each in queued if each[1] is identity]
                    self._queue.extendleft(reversed(mine))
            else:
                identity.held.difference_update(ids)
