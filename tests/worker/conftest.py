"""Workers connect as a role that has the level work and no more; tests prepare as the owner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from support.live import work_role
from support.pg import Database, Server


@contextmanager
def with_workers(db: Database) -> Iterator[Database]:
    """Give a database a role for workers."""
    role = work_role(db)
    db.rows(f"create role {role} login")
    db.rows("select graphile_worker.grant_access(%s, 'work')", role)
    try:
        yield db
    finally:
        db.rows(f"drop owned by {role}")
        db.rows(f"drop role {role}")


@pytest.fixture
def db(db: Database) -> Iterator[Database]:
    """A private database with the extension, and a role for workers."""
    with with_workers(db):
        yield db


@pytest.fixture
def dbs(server: Server) -> Iterator[list[Database]]:
    """Three of them on one server."""
    with ExitStack() as stack:
        made = [stack.enter_context(server.with_extension()) for _ in range(3)]
        yield [stack.enter_context(with_workers(db)) for db in made]
