"""Real servers of every supported major version, and a private database for each test."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphile_worker.testing.embedded import install_files, unprivileged
from packaging.version import parse
from psycopg.conninfo import make_conninfo
from pytest_postgresql import factories
from pytest_postgresql.executors import PostgreSQLExecutor
from support.pg import MAJORS, SERVERS, Database, Server, bin_dir
from xdist.scheduler import LoadScopeScheduling

PostgreSQLExecutor.MIN_SUPPORTED_VERSION = parse("13")

#: Where files are kept in memory: there a database is made in a tenth of the time.
MEMORY, ENOUGH = Path("/dev/shm"), 8 << 30


def pytest_configure() -> None:
    """Keep what tests write in memory, where there is enough and programs may run from it."""
    if "TMPDIR" not in os.environ and MEMORY.is_dir():
        found = os.statvfs(MEMORY)
        if found.f_bavail * found.f_frsize >= ENOUGH and not found.f_flag & os.ST_NOEXEC:
            os.environ["TMPDIR"] = str(MEMORY)
            tempfile.tempdir = None  # which was looked for before


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pg", help="only these major versions, such as 15,18")
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes, too")


def _majors(config: pytest.Config) -> list[int]:
    chosen = config.getoption("--pg")
    return [int(major) for major in chosen.split(",")] if chosen else list(MAJORS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        by_default = metafunc.definition.get_closest_marker("majors")
        majors = [
            pytest.param(
                major,
                id=f"pg{major}",
                marks=[pytest.mark.slow] if by_default and major not in by_default.args else [],
            )
            for major in _majors(metafunc.config)
        ]
        metafunc.parametrize("server", majors, indirect=True, scope="session")


class OneProcessForEachMajor(LoadScopeScheduling):  # type: ignore[misc]
    """Each server is started once, and its extension files are one test's at a time."""

    def _split_scope(self, nodeid: str) -> str:
        major = re.search(r"[\[-](pg\d+)", nodeid)
        return major[1] if major else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneProcessForEachMajor:
    return OneProcessForEachMajor(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured and gave to record_property."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{report.nodeid}: {name}: {value}")


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
