"""The SQL that is printed for migration tools and for pg_tle takes every step that the commands take."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from graphile_worker import __version__
from graphile_worker.install import detect, install, offline_sql, verify
from graphile_worker.install.packaging.scripts import Scripts
from graphile_worker.testing.embedded import wheel_bin_dir
from support.pg import Database, Server

from install.conftest import NEXT
from install.program import gw
from install.test_adopt import GW, make
from install.test_upgrade import checksum, everything, fill


def psql(db: Database, text: str) -> None:
    """Run a script as migration tools do: in one transaction, with psql's variables and all."""
    done = subprocess.run(
        [wheel_bin_dir() / "psql", "-qX", "-1", "-v", "ON_ERROR_STOP=1", "-d", db.dsn],
        input=text, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("mode", "schema"), [("extension", GW), ("plain", GW), ("plain", 'Odd "Na\'me" $$ %s :x \\')]
)
def test_printed_sql_upgrades_to_what_a_fresh_install_is(
    server: Server, empty_db: Database, offering: Scripts, mode: Any, schema: str
) -> None:
    where: dict[str, Any] = {"mode": mode, "schema": schema, "scripts": offering}
    psql(empty_db, offline_sql("install", to=__version__, **where))
    conn = empty_db.connect()
    assert verify(conn, schema=schema) == []
    fill(empty_db, schema)
    before = checksum(empty_db, schema)
    psql(empty_db, offline_sql("upgrade", old=__version__, **where))
    assert checksum(empty_db, schema) == before
    assert detect(conn, schema, offering).version == NEXT
    assert verify(conn, schema=schema, scripts=offering) == []
    with server.database() as fresh:
        psql(fresh, offline_sql("install", **where))
        assert everything(fresh.connect(), schema) == everything(conn, schema)
    psql(empty_db, offline_sql("uninstall", **where))
    assert detect(conn, schema, offering).mode == "none"


@pytest.mark.parametrize("mode", ["extension", "plain"])
@pytest.mark.parametrize("version", ["016", "018"])
def test_printed_sql_adopts_and_releases(empty_db: Database, version: str, mode: Any) -> None:
    make(empty_db, version)
    before = checksum(empty_db)
    conn = empty_db.connect()
    psql(empty_db, gw("sql", "adopt", "--mode", mode))
    assert detect(conn).mode == mode
    assert verify(conn) == []
    if mode == "extension":
        psql(empty_db, gw("sql", "release"))
        assert detect(conn).mode == "plain"
        assert verify(conn) == []
    assert checksum(empty_db) == before


def test_pg_tle_is_told_only_what_came_later(empty_db: Database, following: Scripts) -> None:
    said = following.pg_tle(__version__)
    calls = [line.split("(")[0] for line in said.splitlines() if line.startswith("select pgtle.")]
    assert calls == [
        "select pgtle.install_extension_version_sql", "select pgtle.install_update_path",
        "select pgtle.install_update_path", "select pgtle.set_default_version",
    ]  # fmt: skip
    assert f"'{__version__}', '{NEXT}'" in said
    assert f"'unpackaged', '{NEXT}'" in said
    with pytest.raises(ValueError, match=r"version 7\.0\.0 is unknown"):
        following.pg_tle("7.0.0")
    conn = empty_db.connect()
    install(conn, mode="plain")
    conn.execute("create schema pgtle")
    for name, types in (
        ("install_extension_version_sql", "text, text, text"),
        ("install_update_path", "text, text, text, text"), ("set_default_version", "text, text"),
    ):  # fmt: skip
        conn.execute(
            f"create function pgtle.{name}({types}) returns boolean language sql as 'select true'".encode()
        )
    conn.execute(said.encode())
