"""Through each library, a job is there if, and only if, the caller's transaction commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import django
import graphile_worker as gw
import psycopg
import pytest
import sqlalchemy as sa
from django.conf import settings
from django.db import connections
from django.db import transaction as django_transaction
from graphile_worker import aio, errors
from graphile_worker.install import install
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool
from support.pg import Database

pytestmark = pytest.mark.majors(13, 18)

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3"}}, USE_TZ=True)
django.setup()


class Transaction:
    """An open transaction of some library: what a verb runs on, and how to end and nest it."""

    def __init__(
        self, conn: Any, execute: Callable[[str], Any], commit: Callable[[], Any],
        rollback: Callable[[], Any],
    ) -> None:  # fmt: skip
        self.conn, self.execute, self.commit, self.rollback = conn, execute, commit, rollback


Opened = Callable[[Database], Any]


@contextmanager
def on_psycopg(db: Database) -> Iterator[Transaction]:
    with psycopg.connect(db.dsn) as conn:
        yield Transaction(conn, conn.execute, conn.commit, conn.rollback)


@contextmanager
def on_psycopg_cursor(db: Database) -> Iterator[Transaction]:
    with psycopg.connect(db.dsn) as conn, conn.cursor() as cursor:
        yield Transaction(cursor, conn.execute, conn.commit, conn.rollback)


def engine_url(db: Database, dialect: str) -> sa.URL:
    info = {name: str(value) for name, value in conninfo_to_dict(db.dsn).items()}
    return sa.URL.create(
        f"postgresql+{dialect}",
        info["user"],
        None,
        info["host"],
        int(info["port"]),
        info["dbname"],
    )


def _sqlalchemy(db: Database, dialect: str, opens: Callable[[sa.Engine], Any]) -> Any:
    @contextmanager
    def opened() -> Iterator[Transaction]:
        engine = sa.create_engine(engine_url(db, dialect), poolclass=NullPool)
        with opens(engine) as conn:
            yield Transaction(conn, lambda s: conn.execute(sa.text(s)), conn.commit, conn.rollback)
        engine.dispose()

    return opened()


@contextmanager
def scoped(engine: sa.Engine) -> Iterator[scoped_session[Session]]:
    registry = scoped_session(sessionmaker(engine))
    yield registry
    registry.remove()


def _django(db: Database, as_alias: bool) -> Any:
    @contextmanager
    def opened() -> Iterator[Transaction]:
        info = conninfo_to_dict(db.dsn)
        connections.settings["gw"] = connections.configure_settings(
            {"default": connections.settings["default"], "gw": {
                "ENGINE": "django.db.backends.postgresql", "NAME": info["dbname"],
                "USER": info["user"], "HOST": info["host"], "PORT": info["port"],
            }}
        )["gw"]  # fmt: skip
        connection = connections["gw"]
        try:
            connection.set_autocommit(False)
            yield Transaction(
                "gw" if as_alias else connection,
                lambda s: connection.cursor().execute(s), connection.commit, connection.rollback,
            )  # fmt: skip
        finally:
            connection.rollback()
            connection.close()
            del connections["gw"]
            del connections.settings["gw"]

    return opened()


SYNC: dict[str, Opened] = {
    "psycopg connection": on_psycopg,
    "psycopg cursor": on_psycopg_cursor,
    "SQLAlchemy connection": lambda db: _sqlalchemy(db, "psycopg", lambda e: e.connect()),
    "SQLAlchemy session": lambda db: _sqlalchemy(db, "psycopg", Session),
    "SQLAlchemy scoped session": lambda db: _sqlalchemy(db, "psycopg", scoped),
    "SQLAlchemy session on psycopg2": lambda db: _sqlalchemy(db, "psycopg2", Session),
    "Django connection": lambda db: _django(db, False),
    "Django alias": lambda db: _django(db, True),
}


@asynccontextmanager
async def on_async_psycopg(db: Database) -> AsyncIterator[Transaction]:
    async with await psycopg.AsyncConnection.connect(db.dsn) as conn:
        yield Transaction(conn, conn.execute, conn.commit, conn.rollback)


@asynccontextmanager
async def on_async_cursor(db: Database) -> AsyncIterator[Transaction]:
    async with await psycopg.AsyncConnection.connect(db.dsn) as conn, conn.cursor() as cursor:
        yield Transaction(cursor, conn.execute, conn.commit, conn.rollback)


def _async_sqlalchemy(db: Database, dialect: str, opens: Callable[[Any], Any]) -> Any:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Transaction]:
        engine = create_async_engine(engine_url(db, dialect), poolclass=NullPool)
        async with opens(engine) as conn:
            yield Transaction(conn, lambda s: conn.execute(sa.text(s)), conn.commit, conn.rollback)
        await engine.dispose()

    return opened()


ASYNC: dict[str, Opened] = {
    "psycopg connection": on_async_psycopg,
    "psycopg cursor": on_async_cursor,
    "SQLAlchemy connection": lambda db: _async_sqlalchemy(db, "psycopg", lambda e: e.connect()),
    "SQLAlchemy session": lambda db: _async_sqlalchemy(db, "psycopg", AsyncSession),
    "SQLAlchemy connection on asyncpg": lambda db: _async_sqlalchemy(
        db, "asyncpg", lambda e: e.connect()
    ),
    "SQLAlchemy session on asyncpg": lambda db: _async_sqlalchemy(db, "asyncpg", AsyncSession),
}
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
