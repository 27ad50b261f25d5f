"""Databases that live as long as a test, or a run of tests."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from graphile_worker.errors import GraphileWorkerError
from graphile_worker.install import install
from graphile_worker.naming import SCHEMA
from graphile_worker.testing.sandbox import Queue


@contextmanager
def _admin(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    named = conninfo_to_dict(dsn).get("dbname") or os.environ.get("PGDATABASE") or "postgres"
    with psycopg.connect(make_conninfo(dsn, dbname=named), autocommit=True) as conn:
        yield conn


@contextmanager
def _made(dsn: str, source: str | None) -> Iterator[tuple[str, str]]:
    """Make a database, as a copy of another, and drop it at the end; give its name and dsn."""
    name = f"gw_test_{uuid.uuid4().hex}"
    with _admin(dsn) as admin:
        sql = SQL("create database {}").format(Identifier(name))
        if source is not None:
            sql += SQL(" template {}").format(Identifier(source))
        try:
            admin.execute(sql)
        except psycopg.errors.ObjectInUse as error:
            raise GraphileWorkerError(
                f"the database {source or 'template1'} cannot be copied while others are connected"
                " to it: does graphile_worker_setup leave a connection open?"
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise GraphileWorkerError(
                f"the role {admin.info.user} may not create databases, which tests need:"
                f" run `alter role {admin.info.user} createdb`, or test on another server"
            ) from error
    try:
        yield name, make_conninfo(dsn, dbname=name)
    finally:
        with _admin(dsn) as admin:
            admin.execute(SQL("drop database {} with (force)").format(Identifier(name)))


@contextmanager
def template(
    dsn: str, schema: str = SCHEMA, setup: Callable[[str], object] | None = None
) -> Iterator[str]:
    """Make a database with the queue, and what ``setup`` adds, for copies; give its name."""
    with _made(dsn, None) as (name, made):
        with psycopg.connect(made, autocommit=True) as conn:
            # Not the extension: its version would be that of the server's files.
            install(conn, schema=schema, mode="plain")
        if setup is not None:
            setup(made)
        yield name


@contextmanager
def database(dsn: str, source: str, schema: str = SCHEMA) -> Iterator[Queue]:
    """Make a copy of the template, and give its queue."""
    with _made(dsn, source) as (_, made):
        queue = Queue(made, schema=schema)
        try:
            yield queue
        finally:
            queue.close()
