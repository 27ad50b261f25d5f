"""Through each library, a job is there if, and only if, the caller's transaction commits."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import graphile_worker as gw
import psycopg
import pytest
from django.conf import settings
from django.db import transaction as django_transaction
from graphile_worker import aio, errors
from support.pg import Database

from client.connection.libraries import (
    ASYNC,
    SYNC,
)

pytestmark = pytest.mark.majors(13, 18)


SPECS = [gw.JobSpec("t", {"n": n}, queue_name="q", flags=["f"]) for n in (2, 3)]


def wake_ups(told: psycopg.Connection[Any]) -> int:
    return len(list(told.notifies(timeout=0.1)))


@pytest.mark.parametrize("library", SYNC)
def test_rollback_commit_and_savepoint(db: Database, library: str) -> None:
    told = db.connect()
    told.execute('listen "jobs:insert"')
    with SYNC[library](db) as tx:
        assert gw.add_job("t", {"n": 1}, conn=tx.conn).task_identifier == "t"
        gw.add_jobs(SPECS, conn=tx.conn, chunk_size=1)
        assert db.column("select id from graphile_worker.jobs") == []
        tx.rollback()
        assert db.column("select id from graphile_worker.jobs") == []
        assert wake_ups(told) == 0

        job = gw.add_job("t", {"n": 1}, conn=tx.conn)
        assert db.column("select id from graphile_worker.jobs") == []
        assert wake_ups(told) == 0
        tx.commit()
        assert db.column("select id from graphile_worker.jobs") == [job.id]
        assert wake_ups(told) == 1

        tx.execute("savepoint mine")
        gw.add_job("t", {"n": "rolled back"}, conn=tx.conn)
        tx.execute("rollback to savepoint mine")
        kept = gw.add_jobs(SPECS, conn=tx.conn)
        tx.commit()
        assert db.column("select id from graphile_worker.jobs order by id") == [
            job.id, *(one.id for one in kept)
        ]  # fmt: skip
        assert wake_ups(told) == 1
        assert [(one.queue_name, one.flags, one.payload) for one in kept] == [
            ("q", frozenset("f"), {"n": n}) for n in (2, 3)
        ]  # fmt: skip

        if library != "Django alias":  # WorkerUtils takes a text for a connection string
            gw.WorkerUtils(tx.conn).complete_jobs([job.id])
            tx.rollback()
        with gw.WorkerUtils(db.dsn) as other:
            assert [one.id for one in other.complete_jobs([job.id], conn=tx.conn)] == [job.id]
            assert other.counts().ready == 3
            tx.commit()
            assert other.counts().ready == 2


@pytest.mark.parametrize("library", ASYNC)
def test_rollback_commit_and_savepoint_where_they_are_awaited(db: Database, library: str) -> None:
    told = db.connect()
    told.execute('listen "jobs:insert"')

    async def main() -> None:
        async with ASYNC[library](db) as tx:
            assert (await aio.add_job("t", {"n": 1}, conn=tx.conn)).task_identifier == "t"
            await aio.add_jobs(SPECS, conn=tx.conn, chunk_size=1)
            await tx.rollback()
            assert db.column("select id from graphile_worker.jobs") == []
            assert wake_ups(told) == 0

            job = await aio.add_job("t", {"n": 1}, conn=tx.conn)
            assert db.column("select id from graphile_worker.jobs") == []
            assert wake_ups(told) == 0
            await tx.commit()
            assert db.column("select id from graphile_worker.jobs") == [job.id]
            assert wake_ups(told) == 1

            await tx.execute("savepoint mine")
            await aio.add_job("t", {"n": "rolled back"}, conn=tx.conn)
            await tx.execute("rollback to savepoint mine")
            kept = await aio.add_jobs(SPECS, conn=tx.conn)
            await tx.commit()
            assert db.column("select id from graphile_worker.jobs order by id") == [
                job.id, *(one.id for one in kept)
            ]  # fmt: skip
            assert wake_ups(told) == 1
            assert [(one.queue_name, one.flags, one.payload) for one in kept] == [
                ("q", frozenset("f"), {"n": n}) for n in (2, 3)
            ]  # fmt: skip

            await aio.WorkerUtils(tx.conn).complete_jobs([job.id])
            await tx.rollback()
            async with aio.WorkerUtils(db.dsn) as other:
                assert [one.id for one in await other.complete_jobs([job.id], conn=tx.conn)] == [
                    job.id
                ]
                assert (await other.counts()).ready == 3
                await tx.commit()
                assert (await other.counts()).ready == 2

    asyncio.run(main())


def test_django_atomic_blocks(db: Database) -> None:
    with SYNC["Django connection"](db) as tx:
        tx.conn.set_autocommit(True)
        with suppress(RuntimeError), django_transaction.atomic(using="gw"):
            gw.add_job("t", conn=tx.conn)
            raise RuntimeError
        assert db.column("select id from graphile_worker.jobs") == []
        with django_transaction.atomic(using="gw"):
            kept = gw.add_job("t", conn="gw")
            with suppress(RuntimeError), django_transaction.atomic(using="gw"):
                gw.add_job("t", conn="gw")
                raise RuntimeError
        assert db.column("select id from graphile_worker.jobs") == [kept.id]
        bad = [gw.JobSpec("t"), gw.JobSpec("t", queue_name="x" * 129)]
        with pytest.raises(errors.InvalidQueueName):
            gw.add_jobs(bad, conn="gw", chunk_size=1)
        assert db.column("select id from graphile_worker.jobs") == [kept.id]
        assert gw.add_job("t", conn="gw").id in db.column("select id from graphile_worker.jobs")


def test_django_without_time_zones_reads_aware_times(db: Database) -> None:
    with SYNC["Django connection"](db) as tx:
        settings.USE_TZ = False
        try:
            tx.conn.close()
            job = gw.add_job("t", conn=tx.conn)
            tx.commit()
        finally:
            settings.USE_TZ = True
    assert job.run_at == db.value("select run_at from graphile_worker.jobs")
