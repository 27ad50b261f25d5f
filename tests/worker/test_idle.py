"""What a worker asks of the database while there is nothing to do."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from graphile_worker.testing.embedded import Server as PrivateServer
from graphile_worker.worker import Worker
from support.pg import Server, bin_dir

SECONDS = 25
#: After 0, 1, 3, 7 and 15 seconds, and once for LISTEN; from then on the heartbeats look, too.
LOOKS = 6
#: Every ten seconds, and soon after a look, since the answer says when the next job is due.
BEATS = 8
#: For schedules, at the start and when LISTEN holds; later once a minute.
SCHEDULES = 2
#: Asking for the schema, LISTEN four times, and the end of the heartbeat.
OTHERS = 6


@pytest.mark.majors(18)
def test_a_worker_of_twenty_places_that_is_idle_sends_a_handful_of_statements(
    server: Server,
) -> None:
    async def task(payload: Any) -> None: ...

    async def idle(dsn: str) -> None:
        worker = Worker({"task": task}, dsn=dsn, concurrency=20)
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(SECONDS)
        worker.stop()
        await running

    settings = {"shared_preload_libraries": "'pg_stat_statements'"}
    with (
        PrivateServer(bin_dir(server.major), settings=settings) as private,
        psycopg.connect(private.dsn(), autocommit=True) as conn,
    ):
        conn.execute("create extension pg_stat_statements")
        conn.execute("create extension graphile_worker")
        conn.execute("select pg_stat_statements_reset()")
        asyncio.run(idle(private.dsn()))
        calls = conn.execute(
            "select query, calls from pg_stat_statements"
            " where query not like '%pg_stat_statements%'"
        ).fetchall()

    def count(text: str) -> int:
        return sum(number for query, number in calls if text in query)

    assert 1 < count(".get_jobs(") <= LOOKS, calls
    assert 2 < count(".heartbeat(") <= BEATS, calls
    assert 0 < count(".run_schedules(") <= SCHEDULES, calls
    assert count("") <= LOOKS + BEATS + SCHEDULES + OTHERS, calls
