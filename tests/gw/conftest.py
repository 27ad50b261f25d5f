"""Poolers before the database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bouncer import pgbouncer
from support.pg import Database


@pytest.fixture
def bouncer(db: Database, tmp_path: Path) -> Iterator[str]:
    """The connection string of a pgbouncer in transaction mode."""
    with pgbouncer(db, tmp_path) as dsn:
        yield dsn


@pytest.fixture
def session_bouncer(db: Database, tmp_path: Path) -> Iterator[str]:
    """The connection string of a pgbouncer in session mode."""
    with pgbouncer(db, tmp_path, "session") as dsn:
        yield dsn
