"""Tell the database how jobs ended, many in one statement, until it holds."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from graphile_worker.log import logger, shown
from graphile_worker.worker.context import ClaimedJob
from graphile_worker.worker.database.backoff import Backoff, happens
from graphile_worker.worker.database.protocol import Protocol
from graphile_worker.worker.database.statements import Completing, Records
from graphile_worker.worker.events import Event, Events
from graphile_worker.worker.executors.execute import Outcome, failure_entry
from graphile_worker.worker.lease import Identity
from graphile_worker.worker.records.results import Redact, stored_error, stored_result

#: The most jobs in one statement.
MAX_BATCH = 1000
#: So many are not collected any longer.
FULL_BATCH = 200

#: Seconds after which it is asked anew whether records of jobs are wanted.
RECORDS_WANTED = 60.0

#: A job that ended: under which id, how, and after how many seconds.
Completion = tuple[Identity, ClaimedJob, Outcome, float]


class Completer:
    """Collects how jobs ended, and writes it; what was not written yet stays the worker's.

    While the database is away it retries. What it refuses of many jobs is written in halves, so
    that one job that cannot be written keeps no other from it; that one is retried later.
    """

    def __init__(
        self, protocol: Protocol, events: Events, *, complete_delay: float, fail_delay: float,
        on_written: Callable[[bool, float | None], None], redact: Redact | None = None,
    ) -> None:  # fmt: skip
        self._protocol, self._events = protocol, events
        self._on_written, self._redact = on_written, redact
        #: Until when results are told without being asked for: history is kept.
        self._tells_until = -math.inf
        self._boxes = {
            "success": _Box(complete_delay, self._complete),
            "failure": _Box(fail_delay, self._fail),
            "snooze": _Box(fail_delay, self._snooze),
        }

    def add(self, ended: Completion) -> None:
        """Take note of a job that ended."""
        box = self._boxes[ended[2].kind]
        if not box.waiting:
            box.some.set()
        box.waiting.append(ended)
        # A queue waits for its job to be off the table.
        if ended[1].queue_name is not None or len(box.waiting) >= FULL_BATCH:
            box.now.set()

    def completing(self, job: ClaimedJob, result: Any, seconds: float) -> Completing:
        """Return the statement that completes a job, for the transaction of its task.

        Not every database holds every character, and the transaction could not be tried again.
        """
        text, problem = None, None
        if result is not None:
            text, problem = stored_result(job, result, self._redact, ascii_only=True)
        records = Records([text], [seconds], [problem])
        return self._protocol.completing(job.locked_by, job.id, records)

    def note_written(self, ended: Completion) -> None:
        """Take note of a job whose end its task's transaction has written."""
        identity, job, _, seconds = ended
        identity.held.discard(job.id)
        self._emit_events([ended], seconds)

    def forget(self, job_id: int) -> None:
        """Do not write of a job again that was taken anew: it has been written."""
        for box in self._boxes.values():
            box.waiting = [ended for ended in box.waiting if ended[1].id != job_id]
            box.refused.pop(job_id, None)
            box.fetched_again.add(job_id)

    @property
    def pending(self) -> int:
        """How many jobs have ended and are not written of."""
        return sum(
            len(box.waiting) + box.in_flight + len(box.refused) for box in self._boxes.values()
        )

    async def run(self) -> None:
        """Write, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for box in self._boxes.values():
                group.create_task(self._write_all(box))

    async def flushed(self) -> None:
        """Wait until everything is written."""
        while self.pending:
            for box in self._boxes.values():
                box.now.set()
            await asyncio.sleep(0.005)

    async def _write_all(self, box: _Box) -> None:
        while True:
            await box.filled()
            if box.delay and len(box.waiting) < FULL_BATCH:
                await happens(box.now, box.delay)
            box.now.clear()
            box.waiting = box.due_again() + box.waiting
            batch, box.waiting = box.waiting[:MAX_BATCH], box.waiting[MAX_BATCH:]
            box.in_flight, box.fetched_again = len(batch), set()
            started = time.perf_counter()
            by_worker: dict[Identity, list[Completion]] = defaultdict(list)
            for ended in batch:
                by_worker[ended[0]].append(ended)
            written: list[Completion] = []
            try:
                for identity, group in by_worker.items():
                    if not identity.lost:
                        written += await self._write(box, identity, group)
                    else:
                        written += group
            finally:
                for identity, job, *_ in written:
                    if job.id not in box.fetched_again:
                        identity.held.discard(job.id)
                box.in_flight = 0
            try:
                self._emit_events(written, time.perf_counter() - started)
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError):
                    raise
                logger.error("telling of written results failed: %s", shown(error))

    async def _write(
        self, box: _Box, identity: Identity, group: list[Completion]
    ) -> list[Completion]:
        """Write of some jobs; return those that are written, and keep those that are refused."""
        try:
            await box.write(identity, group)
        except Exception as error:
            if len(group) > 1:
                half = len(group) // 2
                first = await self._write(box, identity, group[:half])
                return first + await self._write(box, identity, group[half:])
            box.refuse(group[0], error)
            return []
        return group

    def _emit_events(self, batch: list[Completion], seconds: float) -> None:
        if not batch:
            return
        events = self._events
        if events.wanted("flush"):
            worker_id = batch[0][0].worker_id
            events.emit(Event("flush", worker_id, seconds=seconds, count=len(batch)))
        if events.wanted("job:complete"):
            for identity, job, outcome, _ in batch:
                if outcome.kind != "snooze":
                    events.emit(
                        Event("job:complete", identity.worker_id, job=job, error=outcome.error)
                    )
        again = [
            _seconds(job, outcome) for _, job, outcome, _ in batch if outcome.kind != "success"
        ]
        queues = any(job.queue_name is not None for _, job, *_ in batch)
        self._on_written(queues, min(again, default=None))

    async def _complete(self, identity: Identity, group: list[Completion]) -> None:
        worker_id, ids = identity.worker_id, [job.id for _, job, *_ in group]
        tells = time.monotonic() < self._tells_until
        records = self._records(group) if tells else None
        late, asked = await self._protocol.complete(worker_id, ids, records)
        if asked:
            self._tells_until = time.monotonic() + RECORDS_WANTED
            left = set(asked)
            records = self._records([ended for ended in group if ended[1].id in left])
            again = [job_id for job_id in ids if job_id in left]
            more, _ = await self._protocol.complete(worker_id, again, records)
            late += more
        _warn(late, "done")

    def _records(self, group: list[Completion]) -> Records:
        doubted, redact = self._boxes["success"].doubted, self._redact
        told = [
            (None, None)
            if outcome.result is None
            else stored_result(job, outcome.result, redact, ascii_only=job.id in doubted)
            for _, job, outcome, _ in group
        ]
        seconds = [seconds for *_, seconds in group]
        return Records([result for result, _ in told], seconds, [problem for _, problem in told])

    async def _fail(self, identity: Identity, group: list[Completion]) -> None:
        # Delays are the database's time, too: what it calls now is asked for at once.
        box = self._boxes["failure"]
        entries: list[dict[str, Any]] = []
        now: datetime | None = None
        for _, job, outcome, seconds in group:
            text = stored_error(job, outcome.error, self._redact)
            entry = failure_entry(job.id, outcome, text, seconds)
            if job.id in box.doubted:  # not every database can hold every character
                entry["error"] = entry["error"].encode("ascii", "backslashreplace").decode()
            if isinstance(outcome.when, timedelta):
                now = now or await self._protocol.now()
                entry["run_at"] = _later(now, outcome.when).isoformat()
            elif outcome.when is not None:
                entry["run_at"] = outcome.when.isoformat()
            entries.append(entry)
        _warn(await self._protocol.fail(identity.worker_id, entries, box.fetched_again), "failed")

    async def _snooze(self, identity: Identity, group: list[Completion]) -> None:
        by_time: dict[datetime | timedelta | None, list[int]] = defaultdict(list)
        fetched_again = self._boxes["snooze"].fetched_again
        for _, job, outcome, _ in group:
            if outcome.pause is None:
                by_time[outcome.when].append(job.id)
            elif job.id not in fetched_again:
                assert outcome.when is not None
                await self._protocol.return_and_pause(
                    identity.worker_id, job.id, outcome.pause, outcome.when, outcome.reason
                )
        for when, ids in by_time.items():
            await self._protocol.return_jobs(identity.worker_id, ids, when, fetched_again)


class _Box:
    """Jobs that ended in one way."""

    def __init__(
        self, delay: float, write: Callable[[Identity, list[Completion]], Awaitable[None]]
    ) -> None:
        self.delay, self.write = delay, write
        self.waiting: list[Completion] = []
        self.in_flight = 0
        #: Jobs of the batch in flight that were taken anew in the meantime.
        self.fetched_again: set[int] = set()
        #: By job, what the database refused to be told, and when to retry.
        self.refused: dict[int, tuple[Completion, float]] = {}
        #: How long those wait, and those that are retried just now.
        self.doubted: dict[int, Backoff] = {}
        #: There are some, and they are not to be kept waiting for more.
        self.some, self.now = asyncio.Event(), asyncio.Event()

    async def filled(self) -> None:
        """Wait for the first job, or for one that is to be retried."""
        while not self.waiting:
            self.some.clear()
            if not self.refused:
                self.doubted.clear()
            soonest = min((at for _, at in self.refused.values()), default=None)
            seconds = None if soonest is None else max(soonest - time.monotonic(), 0.0)
            if not await happens(self.some, seconds):
                return

    def refuse(self, ended: Completion, error: BaseException) -> None:
        """Keep what was refused, to be retried later and later."""
        job_id = ended[1].id
        backoff = self.doubted.setdefault(job_id, Backoff(first=0.2, cap=30.0))
        seconds = backoff.failed(f"the result of job {job_id} was refused", error)
        self.refused[job_id] = ended, time.monotonic() + seconds

    def due_again(self) -> list[Completion]:
        """Take back what was refused and is to be retried now."""
        now = time.monotonic()
        ids = [job_id for job_id, (_, at) in self.refused.items() if at <= now]
        return [self.refused.pop(job_id)[0] for job_id in ids]


def _later(now: datetime, delay: timedelta) -> datetime:
    try:
        return now + delay
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) - timedelta(days=1)


def _seconds(job: ClaimedJob, outcome: Outcome) -> float:
    """Return about how soon a job is due again; a moment too early does no harm."""
    if isinstance(outcome.when, timedelta):
        return max(outcome.when.total_seconds(), 0.0)
    if outcome.when is not None:
        try:
            return max((outcome.when - datetime.now(UTC)).total_seconds(), 0.0)
        except OverflowError:
            return 0.0
    return math.exp(max(min(job.attempts, 10), 0))


def _warn(late: list[int], what: str) -> None:
    if late:
        logger.warning("%s, but no longer held by this worker, so nothing was changed: jobs %s",
            what, ", ".join(map(str, late[:20])),
        )  # fmt: skip
