"""What every command of gw-install has in common: JSON, printing only, twins in the environment, errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from graphile_worker.cli.flags import commands_of
from graphile_worker.errors import FilesError
from graphile_worker.install import detect, install, verify
from graphile_worker.install.cli import build_parser
from graphile_worker.install.packaging.files import control_path, put_files
from support.node import url
from support.pg import Database, wait_for
from support.twins import without_twin

from install.program import gw
from install.test_install import PROGRAM

pytestmark = pytest.mark.majors(18)

GW = "graphile_worker"


def answer(db: Database, *args: str, code: int = 0) -> Any:
    return json.loads(gw(*args, "--json", code=code, env={"GW_DSN": db.dsn}))


@pytest.mark.majors(18)
@pytest.mark.parametrize("mode", ["extension", "plain"])
def test_every_command_answers_in_json_and_only_prints_where_it_is_told(
    empty_db: Database, mode: str
) -> None:
    other = {"extension": "plain", "plain": "extension"}[mode]
    changes = (
        ("install", "--mode", mode), ("grant", "pg_monitor", "observe"), ("switch", other),
        ("switch", mode), ("release",), ("adopt", "--mode", mode), ("uninstall", "--with-jobs"),
    )  # fmt: skip
    for command in changes:
        mode = answer(empty_db, "status")["mode"]
        planned = answer(empty_db, *command, "--dry-run")
        assert answer(empty_db, "status")["mode"] == mode
        assert planned["changed"] is False
        assert not planned["sql"] or planned["message"].startswith("Dry run, nothing was changed")
        assert gw(*command, "--print", env={"GW_DSN": empty_db.dsn})
        done = answer(empty_db, *command)
        assert done["changed"] is (planned["sql"] != []), command
        if command[0] == "install":
            assert answer(empty_db, "verify") == []
            assert answer(empty_db, "upgrade")["changed"] is False
            assert answer(empty_db, "upgrade", "--plan")["steps"] == []
            conn = empty_db.connect()
            conn.execute("select graphile_worker.add_job('x')")
            conn.execute("drop index graphile_worker.jobs_order_idx")
            for only in (["--fix", "--print"], []):
                (drift,) = answer(empty_db, "verify", *only, code=3)
                assert drift["what"] == "index jobs_order_idx"
            assert answer(empty_db, "verify", "--fix") == []
            assert answer(empty_db, "status")["jobs"]["ready"] == 1
    assert answer(empty_db, "status")["mode"] == "none"
    for offline in (
        ["sql"],
        ["sql", "adopt"],
        ["sql", "release"],
        ["sql", "uninstall"],
        ["pg_tle"],
    ):
        assert answer(empty_db, *offline)["sql"]


def test_every_flag_has_a_twin_in_the_environment() -> None:
    without = without_twin(commands_of(build_parser()))
    assert without == {("uninstall", "with_jobs"), ("uninstall", "cascade")}  # these lose something


def test_variables_are_checked_like_flags_and_empty_ones_are_not_set(empty_db: Database) -> None:
    env = {"GW_DSN": empty_db.dsn}
    for name, value in (("MODE", "both"), ("DRY_RUN", "maybe"), ("TIMEOUT", "soon")):
        assert value in gw("install", code=2, env={**env, f"GW_{name}": value})
    assert detect(empty_db.connect()).mode == "none"
    gw("status", env={**env, "GW_MODE": "both"})  # not a flag of this command
    empty = {f"GW_{name}": "" for name in ("SCHEMA", "MODE", "DRY_RUN", "TIMEOUT", "JSON")}
    assert gw("install", env={**env, **empty}).startswith("Installed version")
    assert gw("status", env={"GW_DSN": url(empty_db).replace("postgres:", "postgresql+psycopg:")})


def test_the_flag_that_says_where_the_files_go_wins_over_variables(tmp_path: Path) -> None:
    env = {"GW_DSN": "dbname=nowhere", "GW_SHAREDIR": str(tmp_path / "share")}
    (tmp_path / "share" / "extension").mkdir(parents=True)
    said = gw("files", "put", "--directory", tmp_path / "mine", "--print", env=env)
    assert said.startswith(f"would have put {tmp_path}/mine/extension/")
    assert gw("files", "put", env=env).startswith(f"put {tmp_path}/share/extension/")
    assert "one of" in gw("files", "put", "--directory", "x", "--sharedir", "y", code=1, env=env)


def test_files_that_would_be_put_or_removed_are_only_named(tmp_path: Path) -> None:
    folder = tmp_path / "share" / "extension"
    where = ["--sharedir", "/usr/share/x", "--destdir", tmp_path / "package", "--json"]
    planned = json.loads(gw("files", "put", *where, "--dry-run"))
    assert not (tmp_path / "package").exists()
    done = json.loads(gw("files", "put", *where))
    assert planned == {**done, "changed": False}
    assert all(Path(name).is_file() for name in done["put"])
    folder.mkdir(parents=True)
    assert gw("files", "remove", "--sharedir", folder.parent, "--dry-run") == "nothing to remove\n"
    put_files(folder)
    there = sorted(str(file) for file in folder.iterdir())
    planned = json.loads(gw("files", "remove", "--sharedir", folder.parent, "--print", "--json"))
    assert sorted(planned["removed"]) == there == sorted(str(file) for file in folder.iterdir())


def test_a_folder_that_cannot_be_used_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "on the server's machine" in gw("files", "put", "--sharedir", "missing", code=1)
    (tmp_path / "file").write_text("")
    assert "cannot change" in gw("files", "put", "--directory", "file", code=1)

    def denied(self: Path, data: bytes) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", denied)
        with pytest.raises(FilesError, match="a user who may write there") as caught:
            put_files(tmp_path)
    assert "--mode plain" in str(caught.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_the_setting_of_postgresql_18_names_the_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (Path("it's"), Path("a:b")):
        put_files(folder / "extension", make=True)
    monkeypatch.setattr("stat.S_IXOTH", 0o100)  # pytest's folders are for one user
    home = str(tmp_path / "it's").replace("'", "''")
    assert control_path(Path("it's")) == f"extension_control_path = '{home}:$system'"
    with pytest.raises(FilesError, match="has a colon"):
        control_path(Path("a:b"))


def test_an_interrupted_change_leaves_nothing_and_says_so(empty_db: Database) -> None:
    other = empty_db.connect(autocommit=False)
    install(other, mode="plain")
    process = subprocess.Popen(
        [PROGRAM, "install", "--mode", "plain"], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "GW_DSN": empty_db.dsn},
    )  # fmt: skip
    watch = empty_db.connect()
    waits = "select from pg_locks where locktype = 'advisory' and not granted"
    wait_for(lambda: watch.execute(waits).fetchall())
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.count("\n")) == (130, 1)
    assert said.startswith("gw-install: interrupted;")
    other.rollback()
    assert detect(watch).mode == "none"


def test_an_error_is_one_paragraph(empty_db: Database) -> None:
    several = "host=127.0.0.1,127.0.0.1 port=1,2 connect_timeout=5"
    for command in (["install", "--dsn", several], ["install", "--schema", "pg_mine"]):
        said = gw(*command, code=1, env={"GW_DSN": empty_db.dsn})
        assert "nothing was changed" in said.splitlines()[0]
        assert [line[:11] for line in said.splitlines()[1:]] in ([], ["  because: "])


def test_an_alembic_migration_installs_and_goes_back_with_its_transaction(
    empty_db: Database,
) -> None:
    engine = sqlalchemy.create_engine(url(empty_db).replace("postgres:", "postgresql+psycopg:"))
    for end in ("rollback", "commit"):
        with engine.connect() as bind:  # what op.get_bind() answers
            conn = bind.connection.driver_connection
            assert conn is not None
            assert install(conn).changed
            bind.execute(sqlalchemy.text(f"select {GW}.add_job('x')"))
            getattr(bind, end)()
        assert (detect(empty_db.connect()).mode == "none") is (end == "rollback")
    engine.dispose()
    assert verify(empty_db.connect()) == []


@pytest.mark.parametrize("number", ["nan", "inf", "-1", "soon"])
def test_a_number_of_seconds_is_one(number: str) -> None:
    for flag in ("--timeout", "--lock-timeout"):
        assert "is not a number of seconds" in gw("install", f"{flag}={number}", code=2)
