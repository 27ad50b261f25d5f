"""Real servers of every supported major version, and a private database for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from graphile_worker.embedded import install_files, unprivileged
from packaging.version import parse
from pg import MAJORS, SERVERS, Database, Server, bin_dir
from psycopg.conninfo import make_conninfo
from pytest_postgresql import factories
from pytest_postgresql.executors import PostgreSQLExecutor

PostgreSQLExecutor.MIN_SUPPORTED_VERSION = parse("13")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pg", help="only these major versions, such as 15,18")
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes, too")


def _majors(config: pytest.Config) -> list[int]:
    chosen = config.getoption("--pg")
    return [int(major) for major in chosen.split(",")] if chosen else list(MAJORS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        majors = _majors(metafunc.config)
        metafunc.parametrize(
            "server", majors, ids=[f"pg{m}" for m in majors], indirect=True, scope="session"
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    for item in items:
        # One process a major: each server is started once and not by both processes.
        parameters = getattr(item, "callspec", None)
        if parameters and "server" in parameters.params:
            item.add_marker(pytest.mark.xdist_group(f"pg{parameters.params['server']}"))


for _major in MAJORS:
    globals()[f"proc{_major}"] = factories.postgresql_proc(
        executable=str(
            unprivileged(bin_dir(_major) / "pg_ctl", SERVERS / ".wrappers" / str(_major))
        ),
        postgres_options="-c max_connections=150 -c max_prepared_transactions=5",
    )


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Server:
    major: int = request.param
    install_files(bin_dir(major))
    proc = request.getfixturevalue(f"proc{major}")
    return Server(make_conninfo(host=proc.host, port=proc.port, user=proc.user), major)


@pytest.fixture
def db(server: Server) -> Iterator[Database]:
    """A private database with the extension."""
    with server.database(server.template()) as database:
        yield database


@pytest.fixture
def empty_db(server: Server) -> Iterator[Database]:
    """A private database without the extension."""
    with server.database() as database:
        yield database
