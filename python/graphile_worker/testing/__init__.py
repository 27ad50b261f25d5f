"""The pytest plugin: a database with a queue for each test, on a server of yours.

It is loaded with the package, and imports nothing of it before a test asks for a fixture.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from graphile_worker import lazy

if TYPE_CHECKING:
    from graphile_worker.testing.sandbox import Failure, Queue, RunReport, queue_in

__all__ = ["Failure", "Queue", "RunReport", "queue_in"]

__getattr__ = lazy.attributes(__name__, dict.fromkeys(__all__, "sandbox"))


@pytest.fixture(scope="session")
def graphile_worker_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The connection string of a server, with a role that may create databases.

    Override it to return your own. Else it is that in the environment variable GW_TEST_DSN, the
    server of pytest-postgresql, or the embedded one; whichever comes first.
    """
    dsn = os.environ.get("GW_TEST_DSN")
    if dsn is not None:
        yield dsn
        return
    try:
        proc = request.getfixturevalue("postgresql_proc")
    except pytest.FixtureLookupError:
        found: str | Exception = "pytest-postgresql is not installed"
    except Exception as error:  # its programs are missing, or do not start
        found = error
    else:
        from psycopg.conninfo import make_conninfo

        yield make_conninfo(
            "", host=proc.host, port=proc.port, user=proc.user, password=proc.password or None
        )
        return
    from graphile_worker.testing.embedded import EmbeddedError, Server

    try:
        server = Server().__enter__()
    except EmbeddedError as error:
        from graphile_worker.errors import GraphileWorkerError

        raise GraphileWorkerError(
            "no server to test on: set GW_TEST_DSN to the connection string of one,"
            " override the fixture graphile_worker_server to return it, or install"
            f" pytest-postgresql or graphile-worker[embedded] ({found}; {error})"
        ) from error
    try:
        yield server.dsn()
    finally:
        server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def graphile_worker_schema() -> str:
    """The schema that the queue is in; override it where yours has another name."""
    return "graphile_worker"


@pytest.fixture(scope="session")
def graphile_worker_setup() -> Callable[[str], object] | None:
    """What makes your own tables; override it to return a function of a connection string.

    It is called once, for the database that those of all tests are copies of, and must leave no
    connection open.
    """
    return None


@pytest.fixture(scope="session")
def _graphile_worker_template(
    graphile_worker_server: str,
    graphile_worker_schema: str,
    graphile_worker_setup: Callable[[str], object] | None,
) -> Iterator[str]:
    from graphile_worker.testing.scratch import template

    with template(graphile_worker_server, graphile_worker_schema, graphile_worker_setup) as name:
        yield name


@pytest.fixture
def graphile_worker_queue(
    graphile_worker_server: str, graphile_worker_schema: str, _graphile_worker_template: str
) -> Iterator[Queue]:
    """A queue in a database of the test's own, which is dropped after it."""
    from graphile_worker.testing.scratch import database

    with database(graphile_worker_server, _graphile_worker_template, graphile_worker_schema) as one:
        yield one


@pytest.fixture
def queue(graphile_worker_queue: Queue) -> Queue:
    """The same by a shorter name, for those who have no fixture ``queue`` of their own."""
    return graphile_worker_queue
