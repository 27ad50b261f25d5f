"""Real servers of every supported major version, and a private database for each test."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from graphile_worker.testing.embedded import install_files, unprivileged, wheel_bin_dir
from packaging.version import parse
from psycopg.conninfo import make_conninfo
from pytest_postgresql import factories
from pytest_postgresql.executors import PostgreSQLExecutor
from support.pg import MAJORS, PROCESS, SERVERS, Database, Server, bin_dir
from xdist.scheduler import LoadScopeScheduling

PostgreSQLExecutor.MIN_SUPPORTED_VERSION = parse("13")

#: Where files are kept in memory: there a database is made in a tenth of the time.
MEMORY, ENOUGH = Path("/dev/shm"), 8 << 30


#: In the environment of everything that a run of the tests starts.
MARK = "GRAPHILE_WORKER_TEST_RUN"


def pytest_configure() -> None:
    """Keep what tests write in memory, where there is enough and programs may run from it."""
    if "TMPDIR" not in os.environ and MEMORY.is_dir():
        found = os.statvfs(MEMORY)
        if found.f_bavail * found.f_frsize >= ENOUGH and not found.f_flag & os.ST_NOEXEC:
            os.environ["TMPDIR"] = str(MEMORY)
            tempfile.tempdir = None  # which was looked for before
    os.environ.setdefault(MARK, f"{os.getpid()}-{time.time()}")
    # Programs that a background job of a shell starts ignore SIGINT, and so would those of tests.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Fail if a process was left behind, and end it."""
    if PROCESS:
        return
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if (
                process.pid != os.getpid()
                and process.environ().get(MARK) == os.environ[MARK]
                and "resource_tracker" not in " ".join(process.cmdline())
            ):
                left.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
                process.kill()
    if left:
        print("\nprocesses were left behind:", *left, sep="\n", file=sys.stderr)
        os._exit(3)


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


class OneByOne(LoadScopeScheduling):  # type: ignore[misc]
    """Each test goes to the next process that is free."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneByOne:
    config.option.loadscopereorder = False
    return OneByOne(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    # Long tests first, so that none is left for the end.
    items.sort(key=lambda item: "/sql/" in item.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured and gave to record_property."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{report.nodeid}: {name}: {value}")


for _major in MAJORS:
    globals()[f"proc{_major}"] = factories.postgresql_proc(
        executable=str(
            unprivileged(
                bin_dir(_major) / "pg_ctl",
                SERVERS / ".wrappers" / (PROCESS or "master") / str(_major),
            )
        ),
        postgres_options="-c max_connections=150 -c max_prepared_transactions=5 -c fsync=off",
    )


_servers: dict[int, Server] = {}


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Server:
    major: int = request.param
    if major not in _servers:
        install_files(bin_dir(major))
        proc = request.getfixturevalue(f"proc{major}")
        _servers[major] = Server(
            make_conninfo(host=proc.host, port=proc.port, user=proc.user), major
        )
    return _servers[major]


@pytest.fixture
def db(server: Server) -> Iterator[Database]:
    """A private database with the extension."""
    with server.with_extension() as database:
        yield database


@pytest.fixture
def empty_db(server: Server) -> Iterator[Database]:
    """A private database without the extension."""
    with server.database() as database:
        yield database


@pytest.fixture
def wheel_files() -> Iterator[None]:
    """The extension's files of the embedded server and of Debian's: one test's at a time."""
    with (SERVERS / ".wheel-files.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        install_files(wheel_bin_dir())
        yield
