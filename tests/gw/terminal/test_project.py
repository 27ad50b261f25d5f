"""What a project says of its queue in pyproject.toml."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graphile_worker.cli import project
from graphile_worker.gw.cli import build_parser, main
from graphile_worker.install.cli import main as install_main
from support.command_line import run_main
from support.pg import Database

pytestmark = pytest.mark.majors(18)
NONE = {"GW_DSN": "", "GW_SCHEMA": "", "PGDATABASE": "nosuch"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    inner = tmp_path / "app" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    return tmp_path


def write(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text)


def test_both_commands_connect_as_the_project_says(db: Database, folder: Path) -> None:
    write(folder, f'[tool.graphile_worker]\ndsn = "{db.dsn}"\n')
    out, _ = run_main(main, ["stats", "--json"], env=NONE)
    assert json.loads(out)["ready"] == 0
    out, _ = run_main(install_main, ["status", "--json"], env=NONE)
    assert "1.1.0" in out


def test_a_flag_and_a_variable_go_before_it(db: Database, folder: Path) -> None:
    write(folder, '[tool.graphile_worker]\ndsn = "host=nosuch.invalid"\nschema = "elsewhere"\n')
    run_main(
        main, ["stats", "--json"], env={**NONE, "GW_DSN": db.dsn, "GW_SCHEMA": "graphile_worker"}
    )
    args = ["stats", "--json", "--dsn", db.dsn]
    run_main(main, [*args, "--schema", "graphile_worker"], env=NONE)
    _, error = run_main(main, args, env=NONE, code=1)
    assert "elsewhere" in error


def test_tasks_are_those_of_gw_run_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GW_DSN", "GW_SCHEMA"):
        monkeypatch.delenv(name, raising=False)
    write(folder, '[tool.graphile_worker]\ntasks = "app.tasks"\n')
    for args, tasks in ((["run"], ["app.tasks"]), (["run", "other"], ["other"])):
        options = build_parser().parse_args(args)
        project.apply(options)
        assert options.tasks == tasks
    options = build_parser().parse_args(["schedule", "list"])
    project.apply(options)
    assert options.tasks in (None, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[tool.graphile_worker]\nschem = 'x'", "no setting 'schem'"),
        ("[tool.graphile_worker]\ndsn = 7", "dsn is 7: write a text"),
        ("[tool.graphile_worker]\ntasks = [1]", "or a list of texts"),
        ("[tool]\ngraphile_worker = 3", "is no table"),
        ("[tool", "cannot be read"),
    ],
)
def test_what_does_not_belong_there_is_named(folder: Path, text: str, problem: str) -> None:
    write(folder, text)
    _, error = run_main(main, ["stats", "--json"], env=NONE, code=1)
    assert problem in error


def test_a_project_that_says_nothing_changes_nothing(folder: Path) -> None:
    write(folder, "[project]\nname = 'x'\n")
    assert project.read(Path.cwd()) == (folder / "pyproject.toml", {})
