"""gw-install from the command line: files, every command on every road, and what it says when not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
from graphile_worker import __version__
from graphile_worker.errors import VersionError
from graphile_worker.install import install, offline_sql, uninstall, verify
from graphile_worker.install.inspect import check_server
from graphile_worker.install.packaging.scripts import Scripts, fill_in
from graphile_worker.testing.embedded import Server as EmbeddedServer
from support.command_line import run_program
from support.pg import Database, bin_dir, run

from install.program import gw

pytestmark = pytest.mark.majors(18)


PROGRAM = Path(sys.executable).parent / "gw-install"


def program(*args: object, code: int = 0, env: dict[str, str] | None = None) -> str:
    """Run gw-install as a program; return its stdout if it succeeds, else its stderr."""
    return run_program([PROGRAM, *args], code=code, env=env or {})


@pytest.fixture
def role(empty_db: Database) -> Iterator[str]:
    name = f"role_{empty_db.name[3:]}"
    empty_db.rows(f"create role {name} login")
    yield name
    empty_db.rows(f"drop owned by {name} cascade")
    empty_db.rows(f"drop role {name}")


@pytest.mark.majors(18)
@pytest.mark.parametrize(
    ("mode", "schema"),
    [("extension", "graphile_worker"), ("plain", "graphile_worker"), ("plain", "Odd \"1'")],
)
def test_a_life_by_the_command_line(empty_db: Database, role: str, mode: str, schema: str) -> None:
    run_it = program if mode == "extension" else gw
    env = {"GW_DSN": empty_db.dsn, "GW_SCHEMA": schema, "GW_MODE": mode}
    assert "create" in run_it("install", "--dry-run", env=env)
    assert json.loads(run_it("status", "--json", env=env))["mode"] == "none"
    assert run_it("install", env=env).startswith(f"Installed version {__version__}")
    assert "is installed" in run_it("install", env=env)
    assert json.loads(run_it("install", "--json", env=env))["changed"] is False
    status = json.loads(run_it("status", "--json", env=env))
    assert (status["mode"], status["version"], status["revision"]) == (mode, __version__, 20)
    assert run_it("verify", env=env) == "No drift.\n"
    assert "Nothing to do" in run_it("upgrade", env=env)
    assert "Nothing to do" in run_it("upgrade", "--plan", env=env)

    printed = run_it("grant", role, "work", "--print", env=env)
    ident = fill_in("@extschema@", '"' + schema.replace('"', '""') + '"')
    signatures = empty_db.rows(
        "select from pg_proc p where has_function_privilege(%s, oid, 'execute') and pronamespace ="
        " (select oid from pg_namespace where nspname = %s)", role, schema,
    )  # fmt: skip
    assert signatures == []
    empty_db.connect().execute(printed.encode())
    assert run_it("verify", env=env) == "No drift.\n"
    for level in ("admin", "observe", "none"):
        run_it("grant", role, level, env=env)
        assert run_it("verify", env=env) == "No drift.\n"

    empty_db.connect().execute(f"drop index {ident}.jobs_order_idx".encode())
    assert "index jobs_order_idx is missing" in run_it("verify", code=3, env=env)
    assert "create index jobs_order_idx" in run_it("verify", "--fix", "--dry-run", code=3, env=env)
    assert "Repaired 1 of 1" in run_it("verify", "--fix", env=env)

    if schema == "graphile_worker":
        other = {"extension": "plain", "plain": "extension"}[mode]
        run_it("switch", other, env=env)
        assert json.loads(run_it("status", "--json", env=env))["mode"] == other
        run_it("switch", mode, env=env)
        run_it("release", env=env)
        assert "Nothing" in run_it("release", env=env)
        run_it("adopt", env={**env, "GW_MODE": "auto"})

    empty_db.connect().execute(f"select {ident}.add_job('x')".encode())
    assert "1 jobs" in run_it("uninstall", code=1, env=env)
    empty_db.connect().execute(f"create view public.v as select * from {ident}.jobs".encode())
    assert "view public.v" in run_it("uninstall", "--with-jobs", code=1, env=env)
    assert "drop" in run_it("uninstall", "--with-jobs", "--cascade", "--print", env=env)
    run_it("uninstall", "--with-jobs", "--cascade", env=env)
    assert json.loads(run_it("status", "--json", env=env))["mode"] == "none"
    assert empty_db.rows("select from pg_namespace where nspname = %s", schema) == []


def test_offline_sql_does_what_the_commands_do(empty_db: Database) -> None:
    conn = empty_db.connect(autocommit=False)
    conn.execute("set search_path = public")
    conn.execute(gw("sql", "install", "--schema", "mine").encode())
    assert conn.execute("show search_path").fetchone() == ("public",)
    conn.commit()
    assert verify(conn, schema="mine") == []
    conn.execute(gw("sql", "uninstall", "--schema", "mine").encode())
    assert (
        conn.execute("select from pg_class where relnamespace = 'mine'::regnamespace").fetchall()
        == []
    )
    conn.execute(gw("sql", "install", "--mode", "extension").encode())
    conn.execute(gw("sql", "release").encode())
    assert verify(conn) == []
    conn.commit()
    for bad in (["upgrade"], ["upgrade", "--from", "0.9.0"], ["install", "--to", "7"]):
        assert "gw-install: " in gw("sql", *bad, code=1)
    assert offline_sql("adopt", mode="extension").endswith(f"update to '{__version__}';\n")


def test_pg_tle_gets_calls_that_make_the_whole_extension(empty_db: Database) -> None:
    """With stand-ins for its functions that keep what they are given; the scripts are then run."""
    conn = empty_db.connect()
    conn.execute(
        """
        create schema pgtle;
        create table pgtle.kept (name text, version text, old text, body text);
        create function pgtle.install_extension(name text, version text, description text, ext text,
          requires text[] default null) returns boolean language sql as
          $$ insert into pgtle.kept values (name, version, null, ext) returning true $$;
        create function pgtle.install_extension_version_sql(name text, version text, ext text)
          returns boolean language sql as
          $$ insert into pgtle.kept values (name, version, null, ext) returning true $$;
        create function pgtle.install_update_path(name text, fromvers text, tovers text, ext text)
          returns boolean language sql as
          $$ insert into pgtle.kept values (name, tovers, fromvers, ext) returning true $$;
        create function pgtle.set_default_version(name text, version text) returns boolean
          language sql as 'select true';
        """
    )
    conn.execute(gw("pg_tle").encode())
    kept = {(version, old): body for version, old, body in conn.execute(
        "select version, old, body from pgtle.kept where name = 'graphile_worker'").fetchall()}  # fmt: skip
    versions = Scripts().versions()
    assert set(kept) == {
        *((version, None) for version in [*versions, "unpackaged"]), (__version__, "unpackaged"),
        *((new, old) for old, new in pairwise(versions)),
    }  # fmt: skip
    assert kept[__version__, None].strip() == Scripts().extension(__version__).strip()
    assert "\\echo" not in "".join(kept.values())
    body = kept[__version__, None].partition("-- Only for an extension")[0]
    conn.execute("create schema graphile_worker")
    with conn.transaction():
        conn.execute(body.replace("@extschema@", "graphile_worker").encode())
    assert verify(conn) == []


def test_no_superuser_is_needed_anywhere(empty_db: Database, role: str) -> None:
    conn = empty_db.connect(role=role)
    env = {"GW_DSN": f"{empty_db.dsn} user={role}"}
    for mode in ("extension", "plain"):
        said = gw("install", "--mode", mode, code=1, env=env)
        assert f"grant create on database {empty_db.name} to {role}" in said
    assert empty_db.rows("select from pg_namespace where nspname = 'graphile_worker'") == []

    empty_db.rows(f"grant create on database {empty_db.name} to {role}")  # only that
    for mode in ("extension", "plain"):
        install(conn, mode=mode)  # type: ignore[arg-type]
        assert verify(conn) == []
        conn.execute("select graphile_worker.add_job('x')")
        uninstall(conn, with_jobs=True)
    empty_db.rows(f"revoke create on database {empty_db.name} from {role}")
    empty_db.rows(
        f"create schema graphile_worker authorization {role}"
    )  # only a schema that exists
    install(conn)
    assert verify(conn) == []
    uninstall(conn)
    empty_db.rows(f"alter database {empty_db.name} owner to {role}")  # the owner
    install(conn)
    assert verify(conn) == []
    uninstall(conn)
    empty_db.rows(f"alter database {empty_db.name} owner to postgres")


@pytest.mark.majors(18)
def test_bad_input_is_told_in_one_paragraph_and_nothing_is_changed(
    empty_db: Database, role: str
) -> None:
    def said(*args: object, **env: str) -> str:
        text = gw(*args, code=1, env={"GW_DSN": empty_db.dsn, **env})
        assert "Traceback" not in text
        assert text.startswith("gw-install: ")
        return text

    assert "server" in said("install", GW_DSN="host=127.0.0.1 port=1 connect_timeout=5")
    assert "does not exist" in said("install", GW_DSN=f"{empty_db.dsn} dbname=no_such_database")
    assert "has 64 bytes" in said("install", "--schema", "x" * 64)
    assert "--mode plain" in said("install", "--schema", "other", "--mode", "extension")
    for command in ("verify", "upgrade", "release", "grant"):
        assert "gw-install install" in said(
            command, *([role, "work"] if command == "grant" else [])
        )
    assert "nothing to adopt" in said("adopt")
    empty_db.rows("create schema graphile_worker")
    empty_db.rows("create table graphile_worker._private_jobs (mine int)")
    for command in ("install", "adopt"):
        assert "are not ours" in said(command)
    assert empty_db.column(
        "select relname from pg_class where relnamespace = 'graphile_worker'::regnamespace"
    ) == ["_private_jobs"]
    assert "Nothing to do" in gw("uninstall", env={"GW_DSN": empty_db.dsn})
    empty_db.rows("drop schema graphile_worker cascade")
    install(empty_db.connect())
    assert "does not exist" in said("grant", "no such role", "work")
    assert "as an extension already" in said("install", "--mode", "plain")
    assert gw("nonsense", code=2).startswith("usage")
    anybody = f"{empty_db.dsn} user={role}"
    assert "gw-install grant" in said("status", GW_DSN=anybody)
    for command in ("release", "uninstall", "verify"):
        assert role in said(command, GW_DSN=anybody)
    assert verify(empty_db.connect()) == []


@pytest.mark.usefixtures("wheel_files")
def test_a_wrong_password_is_told_as_such() -> None:
    with EmbeddedServer(settings={"password_encryption": "'scram-sha-256'"}) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            conn.execute("create role clerk login password 'right'")
            (hba,) = conn.execute("show hba_file").fetchone() or ("",)
            Path(hba).write_text("host all postgres all trust\nhost all all all scram-sha-256\n")
            conn.execute("select pg_reload_conf()")
        dsn = server.dsn().replace("user=postgres", "user=clerk") + " password=wrong"
        assert "password authentication failed" in gw("install", "--dsn", dsn, code=1)


def test_a_server_of_version_12_is_refused(tmp_path: Path) -> None:
    with EmbeddedServer(bin_dir(12)) as server:
        assert "PostgreSQL 12; graphile_worker needs 13 or newer" in gw(
            "install", "--dsn", server.dsn(), code=1
        )
    with pytest.raises(VersionError, match=r"PostgreSQL 9\.6"):
        check_server(90624)


def test_an_application_installs_in_its_own_transaction(empty_db: Database) -> None:
    conn = empty_db.connect(autocommit=False)
    conn.execute("create table mine ()")
    install(conn)
    conn.execute("select graphile_worker.add_job('x')")
    conn.rollback()
    assert empty_db.rows("select from pg_namespace where nspname = 'graphile_worker'") == []
    assert empty_db.value("select to_regclass('mine')") is None
    install(conn)
    conn.commit()
    assert verify(conn) == []


def test_help_names_the_environment_twins() -> None:
    for command in ("install", "upgrade", "adopt"):
        text = re.sub(r"\s+", " ", gw(command, "--help"))
        for name in ("GW_DSN", "GW_SCHEMA", "GW_TIMEOUT", "GW_LOCK_TIMEOUT", "GW_JSON"):
            assert f"[env: {name}]" in text


def test_the_python_block_of_the_docs_runs(empty_db: Database) -> None:
    text = (Path(__file__).parents[2] / "docs" / "install.md").read_text()
    block = text.split("```python\n")[1].split("```")[0]
    info = empty_db.connect().info
    env = {
        "PGHOST": info.host,
        "PGPORT": str(info.port),
        "PGUSER": "postgres",
        "PGDATABASE": empty_db.name,
    }
    said = run([sys.executable, "-c", block], env={**os.environ, **env})
    assert said.startswith("Installed version")
    assert verify(empty_db.connect()) == []


def test_a_reader_who_had_enough_is_no_error() -> None:
    said = run(["bash", "-c", f"set -o pipefail; {PROGRAM} sql | head -n 1"])
    assert said == "create schema if not exists graphile_worker;\n"


def test_a_psycopg_without_libpq_is_told(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('no pq wrapper available')")
    done = subprocess.run(
        [str(PROGRAM), "--help"], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "graphile-worker[binary]" in done.stderr
    assert "Traceback" not in done.stderr
