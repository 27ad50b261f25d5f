"""What a connection may be, and what its errors become."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import patch

import graphile_worker as gw
import psycopg
import pytest
import sqlalchemy as sa
from graphile_worker import aio, errors
from graphile_worker.client.tracing import to_server
from graphile_worker.install import install
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from support.pg import Database

from client.connection.libraries import (
    ASYNC,
    SYNC,
    engine_url,
)

pytestmark = pytest.mark.majors(13, 18)


@pytest.mark.parametrize("library", SYNC)
def test_an_error_of_the_queue_is_ours_through_every_library(db: Database, library: str) -> None:
    with SYNC[library](db) as tx:
        with pytest.raises(errors.InvalidQueueName, match="at most 128") as caught:
            gw.add_job("t", conn=tx.conn, queue_name="x" * 129)
        assert caught.value.sqlstate == "GWBQN"
        assert caught.value.__cause__ is not None
        tx.rollback()
        with pytest.raises(errors.SchemaError, match="gw-install"):
            gw.add_job("t", conn=tx.conn, schema="elsewhere")
        tx.rollback()
        gw.add_job("t", conn=tx.conn)
        tx.commit()
    assert len(db.column("select id from graphile_worker.jobs")) == 1


@pytest.mark.parametrize("library", ASYNC)
def test_an_error_of_the_queue_is_ours_where_it_is_awaited(db: Database, library: str) -> None:
    async def main() -> None:
        async with ASYNC[library](db) as tx:
            with pytest.raises(errors.InvalidQueueName, match="at most 128") as caught:
                await aio.add_job("t", conn=tx.conn, queue_name="x" * 129)
            assert caught.value.sqlstate == "GWBQN"
            await tx.rollback()
            with pytest.raises(errors.SchemaError, match="gw-install"):
                await aio.add_job("t", conn=tx.conn, schema="elsewhere")
            await tx.rollback()

    asyncio.run(main())


@pytest.mark.parametrize("library", SYNC)
def test_a_schema_of_any_name_is_reached_through_every_library(
    empty_db: Database, library: str
) -> None:
    name = 'Odd "queue" 100% :x %(y)s {s} \'é'
    install(empty_db.connect(), schema=name, mode="plain")
    with SYNC[library](empty_db) as tx:
        job = gw.add_job("t", "50% :x \\:y %s", conn=tx.conn, schema=name, job_key="100% :x")
        assert (job.payload, job.key) == ("50% :x \\:y %s", "100% :x")
        jobs = gw.add_jobs(
            [gw.JobSpec("t", ":a"), gw.JobSpec("u", "%b")], conn=tx.conn, schema=name
        )
        assert [(one.task_identifier, one.payload) for one in jobs] == [("t", ":a"), ("u", "%b")]
        with gw.WorkerUtils(schema=name) as utils:
            assert utils.counts(conn=tx.conn).total == 3
        tx.commit()


@pytest.mark.parametrize("library", [*SYNC, *(f"{name}, awaited" for name in ASYNC)])
def test_a_span_names_the_server_whatever_the_library(db: Database, library: str) -> None:
    async def awaited(opened: Any) -> None:
        async with opened as tx:
            await aio.add_job("t", conn=tx.conn, trace=True)

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with patch("opentelemetry.trace.get_tracer", provider.get_tracer):
        if library in SYNC:
            with SYNC[library](db) as tx:
                gw.add_job("t", conn=tx.conn, trace=True)
        else:
            asyncio.run(awaited(ASYNC[library.removesuffix(", awaited")](db)))
    (span,) = exporter.get_finished_spans()
    info = conninfo_to_dict(db.dsn)
    attributes = span.attributes or {}
    assert attributes["server.address"] == info["host"]
    assert attributes["server.port"] == int(str(info["port"]))
    assert to_server.get() is None


def test_what_is_no_connection_is_told_what_to_use_instead(db: Database) -> None:
    from psycopg_pool import ConnectionPool

    pool = ConnectionPool(db.dsn, open=False)
    engine = sa.create_engine(engine_url(db, "psycopg"))
    waiting = db.connect()

    async def awaited(conn: Any) -> None:
        await aio.add_job("t", conn=conn)

    for conn, remedy in (
        (pool, "is a pool: pass it to WorkerUtils"),
        (engine, "is an engine: pass it to WorkerUtils"),
        (object(), "pass a psycopg 3 connection"),
        (None, "pass a psycopg 3 connection"),
    ):
        with pytest.raises(errors.InvalidConnection, match=remedy):
            gw.add_job("t", conn=conn)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidConnection, match="is a pool"):
        gw.WorkerUtils(waiting).add_job("t", conn=pool)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidConnection, match=r"from graphile_worker$"):
        asyncio.run(awaited(waiting))
    with pytest.raises(errors.InvalidConnection, match="is sqlite"):
        gw.add_job("t", conn="default")

    async def mixed() -> None:
        async with await psycopg.AsyncConnection.connect(db.dsn) as conn:
            with pytest.raises(errors.InvalidConnection, match=r"from graphile_worker\.aio$"):
                gw.add_job("t", conn=conn)  # type: ignore[arg-type]

    asyncio.run(mixed())


def test_utils_take_pools_and_engines_and_commit_each_verb(db: Database) -> None:
    from psycopg_pool import AsyncConnectionPool, ConnectionPool

    with ConnectionPool(db.dsn, min_size=1) as pool, gw.WorkerUtils(pool) as utils:
        utils.add_jobs([("t", {})] * 3, chunk_size=2)
    engine = sa.create_engine(engine_url(db, "psycopg"), poolclass=NullPool)
    gw.WorkerUtils(engine).add_job("t")

    async def main() -> None:
        async with AsyncConnectionPool(db.dsn, min_size=1, open=False) as pool:
            await aio.WorkerUtils(pool).add_job("t")
        engine = create_async_engine(engine_url(db, "asyncpg"), poolclass=NullPool)
        await aio.WorkerUtils(engine).add_jobs([("t", {})] * 3, chunk_size=2)

    asyncio.run(main())
    assert len(db.column("select id from graphile_worker.jobs")) == 8
