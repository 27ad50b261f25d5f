"""The client by both of its faces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.pg import Database

from client.faces import FACES, Face, Utils


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> Iterator[Face]:
    face = Face(request.param)
    yield face
    face.close()


@pytest.fixture
def conn(face: Face, db: Database) -> Iterator[Any]:
    """A connection of the face's kind, in autocommit mode."""
    connection = face.connect(db.dsn, autocommit=True)
    yield connection
    face.run(connection.close())


@pytest.fixture
def role(db: Database) -> Iterator[str]:
    name = f"role_{db.name[3:]}"
    db.rows(f"create role {name} login")
    yield name
    db.rows(f"drop owned by {name}")
    db.rows(f"drop role {name}")


@pytest.fixture
def utils(face: Face, db: Database, role: str) -> Iterator[Utils]:
    """The verbs as a role that has the level admin, and no right on any table."""
    db.rows("select graphile_worker.grant_access(%s, 'admin')", role)
    with face.utils(db.dsn.replace("user=postgres", f"user={role}")) as utils:
        yield utils
