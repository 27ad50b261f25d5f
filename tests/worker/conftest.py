"""Workers connect as a role that has the level work and no more; tests prepare as the owner."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.live import work_role
from support.pg import Database


@pytest.fixture
def db(db: Database) -> Iterator[Database]:
    """A private database with the extension, and a role for workers."""
    role = work_role(db)
    db.rows(f"create role {role} login")
    db.rows("select graphile_worker.grant_access(%s, 'work')", role)
    try:
        yield db
    finally:
        db.rows(f"drop owned by {role}")
        db.rows(f"drop role {role}")
