"""The client by both of its faces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.pg import Database

from client.faces import FACES, Face


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
