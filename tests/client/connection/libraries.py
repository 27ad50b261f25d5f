"""The libraries that a caller may connect through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import django
import psycopg
import sqlalchemy as sa
from django.conf import settings
from django.db import connections
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool
from support.pg import Database

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
