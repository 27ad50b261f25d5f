"""What open pages are told as it happens, by server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from typing import Any

import psycopg
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from graphile_worker.errors import GraphileWorkerError
from graphile_worker.gw import reads
from graphile_worker.gw.queue import Queue
from graphile_worker.gw.ui.site import Source
from graphile_worker.gw.values import plain

#: Seconds from sample to sample, and how many are kept for the plot.
INTERVAL, KEPT = 2.0, 300


class Live:
    """Samples a database while somebody watches, once for all who do."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._watchers: set[asyncio.Queue[dict[str, Any]]] = set()
        self._task: asyncio.Task[None] | None = None
        #: The last samples, for the plot of a page that is opened.
        self.samples: deque[dict[str, Any]] = deque(maxlen=KEPT)

    async def watch(self) -> AsyncIterator[str]:
        """Yield events until the reader leaves."""
        mine: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=10)
        self._watchers.add(mine)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._sample_all())
        try:
            yield "retry: 2000\n\n"
            while True:
                yield f"data: {json.dumps(await mine.get())}\n\n"
        finally:
            self._watchers.discard(mine)

    async def _sample_all(self) -> None:
        connection = _Connection(self._source)
        try:
            while self._watchers:
                sample = await run_in_threadpool(connection.sample)
                if "problem" not in sample:
                    self.samples.append(sample)
                for watcher in self._watchers:
                    if not watcher.full():
                        watcher.put_nowait(sample)
                await asyncio.sleep(INTERVAL)
        finally:
            await asyncio.shield(run_in_threadpool(connection.close))


class _Connection:
    """The connection of the samples, which is made again when it is lost."""

    def __init__(self, source: Source) -> None:
        self._source, self._stack = source, ExitStack()
        self._queue: Queue | None = None
        self._before: tuple[float, Any] | None = None

    def sample(self) -> dict[str, Any]:
        try:
            if self._queue is None:
                self._queue = self._stack.enter_context(self._source.opened())
            with self._queue.limited(read_only=True):
                counted = reads.counted(self._queue)
                totals = reads.totals(self._queue, self._source.cache)
        except (psycopg.Error, GraphileWorkerError) as error:
            self.close()
            return {"at": time.time(), "problem": plain(" ".join(str(error).split()))}
        now = time.monotonic()
        then, before = self._before or (now - INTERVAL, counted)
        self._before = now, counted
        rates = {
            name: round(max(0, counted[name] - before[name]) / max(now - then, 0.001), 1)
            for name in ("added", "ended")
        }
        version = sum(counted.values()) + self._source.cache.changes
        states = {name: int(totals[name]) for name in ("ready", "scheduled", "running", "failed")}
        return {"at": time.time(), "version": version, **rates, **states}

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        self._queue = None
        stack, self._stack = self._stack, ExitStack()
        with suppress(psycopg.Error):
            stack.close()


async def events(request: Request) -> Response:
    """Stream the samples of a database."""
    live: dict[str, Live] = request.app.state.live
    found = live.get(request.path_params["database"])
    if found is None:
        return Response("No such database.\n", 404)
    return StreamingResponse(found.watch(), media_type="text/event-stream")
