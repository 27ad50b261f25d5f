"""What every adapter of the neutral benchmark does: settings in, JSON lines out, a producer.

The contract is that of hardbyte/postgresql-job-queue-benchmarking: one process produces and runs
jobs, is told how by environment variables, prints a descriptor and then a line for each metric, and
ends within five seconds of SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

#: Seconds over which the times of claims are summed up.
WINDOW = 30.0
#: Seconds until a process that was told to end has ended, whatever it still does.
LEAVES_WITHIN = 4.0


def _number(name: str, default: float) -> float:
    return float(os.environ.get(name) or default)


@dataclass(frozen=True)
class Settings:
    """What the environment says."""

    url: str = field(default_factory=lambda: os.environ["DATABASE_URL"])
    scenario: str = field(default_factory=lambda: os.environ.get("SCENARIO", "long_horizon"))
    #: fixed: PRODUCER_RATE jobs a second; depth-target: TARGET_DEPTH jobs wait.
    mode: str = field(default_factory=lambda: os.environ.get("PRODUCER_MODE", "fixed"))
    rate: float = field(default_factory=lambda: _number("PRODUCER_RATE", 800))
    depth: int = field(default_factory=lambda: int(_number("TARGET_DEPTH", 1000)))
    batch_max: int = field(default_factory=lambda: int(_number("PRODUCER_BATCH_MAX", 128)))
    batch_ms: float = field(default_factory=lambda: _number("PRODUCER_BATCH_MS", 10))
    workers: int = field(default_factory=lambda: int(_number("WORKER_COUNT", 32)))
    work_ms: float = field(default_factory=lambda: _number("JOB_WORK_MS", 1))
    payload_bytes: int = field(default_factory=lambda: int(_number("JOB_PAYLOAD_BYTES", 256)))
    sample_every: float = field(default_factory=lambda: _number("SAMPLE_EVERY_S", 10))


class Adapter(ABC):
    """A queue: subclasses say how to prepare, fill, run and measure it."""

    system: str
    version: str
    #: The tables in which its jobs are written.
    event_tables: tuple[str, ...]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._claims: deque[tuple[float, float]] = deque()
        self._enqueued = self._completed = 0
        #: How many jobs wait, as far as this process knows.
        self._waiting = 0

    @abstractmethod
    async def prepare(self) -> None:
        """Make the schema, unless it is there, and connect."""

    @abstractmethod
    async def enqueue(self, payloads: list[dict[str, Any]]) -> None:
        """Add jobs in one statement or transaction."""

    @abstractmethod
    async def work(self) -> None:
        """Run jobs by ``run``, until cancelled."""

    @abstractmethod
    async def count_waiting(self) -> int:
        """Return how many jobs wait."""

    async def run(self, payload: dict[str, Any]) -> None:
        """Do the work of a job."""
        now = time.time()
        self._claims.append((now, (now - payload["at"]) * 1000))
        self._waiting -= 1
        await asyncio.sleep(self.settings.work_ms / 1000)
        self._completed += 1

    async def main(self) -> None:
        """Run until SIGTERM."""
        await self.prepare()
        self._print({
            "kind": "descriptor", "system": self.system, "event_tables": list(self.event_tables),
            "version": self.version, "db_name": self.settings.url.rsplit("/", 1)[-1],
            "started_at": datetime.now(UTC).isoformat(),
        })  # fmt: skip
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        self._waiting = await self._waits()
        tasks = [
            asyncio.ensure_future(body())
            for body in (self.work, self._produce, self._sample, stop.wait)
        ]
        await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
        failed = [task.exception() for task in tasks if task.done() and not task.cancelled()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=LEAVES_WITHIN)
        if error := next((each for each in failed if each is not None), None):
            raise error

    async def _waits(self) -> int:
        """Return how many jobs wait; when the database is away, what is known."""
        with contextlib.suppress(Exception):
            return await self.count_waiting()
        return self._waiting

    async def _produce(self) -> None:
        settings, last, credit = self.settings, time.monotonic(), 0.0
        filler = "x" * max(0, settings.payload_bytes - 40)
        while True:
            await asyncio.sleep(settings.batch_ms / 1000)
            now = time.monotonic()
            # Of a time in which nothing could be added, a second at most is made up for.
            credit = min(credit + settings.rate * (now - last), settings.rate)
            last = now
            if settings.mode == "depth-target":
                credit = settings.depth - self._waiting
            count = min(int(credit), settings.batch_max)
            if count <= 0:
                continue
            try:
                await self.enqueue([{"at": time.time(), "filler": filler}] * count)
            except Exception as error:
                print(f"enqueue failed: {error}", file=sys.stderr, flush=True)
                await asyncio.sleep(0.2)
                continue
            credit -= count
            self._enqueued += count
            self._waiting += count

    async def _sample(self) -> None:
        every, before = self.settings.sample_every, (0, 0)
        while True:
            await asyncio.sleep(every - time.time() % every)
            self._waiting = await self._waits()
            enqueued, completed = self._enqueued, self._completed
            self._metric("enqueue_rate", (enqueued - before[0]) / every, every)
            self._metric("completion_rate", (completed - before[1]) / every, every)
            self._metric("queue_depth", self._waiting, 0)
            before = enqueued, completed
            while self._claims and self._claims[0][0] < time.time() - WINDOW:
                self._claims.popleft()
            waits = sorted(wait for _, wait in self._claims)
            for percent in (50, 95, 99) if waits else ():
                value = waits[min(len(waits) - 1, len(waits) * percent // 100)]
                self._metric(f"claim_p{percent}_ms", value, WINDOW)

    def _metric(self, name: str, value: float, window: float) -> None:
        self._print({
            "t": datetime.now(UTC).isoformat(), "system": self.system, "kind": "adapter",
            "subject_kind": "adapter", "subject": "", "metric": name, "value": round(value, 3),
            "window_s": window,
        })  # fmt: skip

    @staticmethod
    def _print(line: dict[str, Any]) -> None:
        print(json.dumps(line), flush=True)
