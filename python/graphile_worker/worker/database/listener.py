"""Hear of new jobs: LISTEN on a connection of its own, which heals by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg

from graphile_worker.log import logger
from graphile_worker.worker.database.backoff import Backoff
from graphile_worker.worker.database.connections import DEADLINE, conninfo
from graphile_worker.worker.events import Event, Events

#: Seconds of silence after which the connection is tried, and how long it has to answer.
TRIED_AFTER, ANSWERS_WITHIN = 60.0, 10.0


class Listener:
    """Listens for new jobs, for changes of those that the worker holds, and of the schema.

    ``on_jobs`` and ``on_control`` are called for each such notification, and after each reconnect,
    when some may have been missed; ``on_jobs`` with the notification's payload. ``on_claimed`` is
    called with what another worker tells of what it claimed, ``on_migration`` where someone says
    that the schema was migrated.
    """

    def __init__(
        self, dsn: str, events: Events, *, worker_id: Callable[[], str],
        on_jobs: Callable[[str], None], on_claimed: Callable[[str], None],
        on_control: Callable[[], None], on_migration: Callable[[], None],
    ) -> None:  # fmt: skip
        self._dsn, self._events, self._worker_id = conninfo(dsn), events, worker_id
        self._on_jobs, self._on_claimed, self._on_control = on_jobs, on_claimed, on_control
        self._on_migration = on_migration
        self.listening = False

    async def run(self) -> None:
        """Listen, until cancelled."""
        backoff = Backoff()
        while True:
            try:
                await self._listen(backoff)
            except Exception as error:
                self._events.emit(Event("listen:error", self._worker_id(), error=error))
                await asyncio.sleep(backoff.failed("LISTEN failed, only polling", error))

    async def _listen(self, backoff: Backoff) -> None:
        async with asyncio.timeout(DEADLINE):
            conn = await psycopg.AsyncConnection.connect(
                self._dsn, autocommit=True, fallback_application_name="graphile_worker listen"
            )
        try:
            conn.add_notify_handler(self._heard)
            async with asyncio.timeout(ANSWERS_WITHIN):
                await conn.execute('listen "jobs:insert"')
                await conn.execute('listen "jobs:claimed"')
                await conn.execute('listen "jobs:control"')
                await conn.execute('listen "worker:migrate"')
            self.listening = True
            logger.debug("LISTEN holds")
            backoff.reset()
            self._events.emit(Event("listen:start", self._worker_id()))
            self._on_jobs("")
            self._on_control()
            while True:
                await self._hear(conn, TRIED_AFTER)
                # A peer that vanished, or returns nothing, is not noticed by listening alone.
                async with asyncio.timeout(ANSWERS_WITHIN):
                    await conn.execute("")
        finally:
            self.listening = False
            await conn.close()

    async def _hear(self, conn: psycopg.AsyncConnection[Any], seconds: float) -> None:
        """Hear for so long, without a turn of the event loop between; raise where it is lost."""
        loop, pgconn, encoding = asyncio.get_running_loop(), conn.pgconn, conn.info.encoding
        socket, lost = pgconn.socket, loop.create_future()

        def readable() -> None:
            try:
                pgconn.consume_input()
                while note := pgconn.notifies():
                    name, payload = note.relname.decode(encoding), note.extra.decode(encoding)
                    self._heard(psycopg.Notify(name, payload, note.be_pid))
            except Exception as error:
                # At once: a closed socket's number may be given to another one.
                loop.remove_reader(socket)
                lost.set_exception(error)

        loop.add_reader(socket, readable)
        try:
            async with asyncio.timeout(seconds):
                await lost
        except TimeoutError:
            if lost.done() and not lost.cancelled():
                raise
        finally:
            if not conn.closed and not (lost.done() and not lost.cancelled()):
                loop.remove_reader(socket)

    def _heard(self, note: psycopg.Notify) -> None:
        if note.channel == "jobs:insert":
            self._on_jobs(note.payload)
        elif note.channel == "jobs:claimed":
            self._on_claimed(note.payload)
        elif note.channel == "jobs:control":
            self._on_control()
        else:
            self._on_migration()
