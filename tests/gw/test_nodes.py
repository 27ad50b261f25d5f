"""gw on several databases: each answer with its place, and what is of one database refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from graphile_worker.gw.cli import COMMANDS, main
from graphile_worker.worker.cluster.members import place_of
from support.command_line import run_main
from support.pg import Database, Server

from gw.rows import add

pytestmark = pytest.mark.majors(18)


@pytest.fixture
def dbs(server: Server) -> Iterator[list[Database]]:
    with ExitStack() as stack:
        yield [stack.enter_context(server.with_extension()) for _ in range(2)]


def gw(dbs: list[Database], *args: str, code: int = 0) -> tuple[str, str]:
    given = [part for db in dbs for part in ("--dsn", db.dsn)]
    return run_main(main, [*args, *given], code=code, env={})


def test_numbers_and_jobs_come_with_their_place(dbs: list[Database]) -> None:
    for count, db in enumerate(dbs, 1):
        for _ in range(count):
            add(db, f"task_{count}")
    out, _ = gw(dbs, "stats")
    first, second = out.split("== ")[1:]
    assert first.startswith(place_of(dbs[0].dsn))
    assert "task_1" in first
    assert "task_2" in second
    out, _ = gw(dbs, "jobs", "--json")
    answers = json.loads(out)
    assert [each["node"] for each in answers] == [place_of(db.dsn) for db in dbs]
    assert [len(each["answer"]) for each in answers] == [1, 2]
    env = {"GW_DSN": "\n".join(db.dsn for db in dbs)}
    out, _ = run_main(main, ["jobs", "--json"], env=env)
    assert json.loads(out) == answers


def test_all_are_changed(dbs: list[Database]) -> None:
    gw(dbs, "pause", "all")
    assert [db.value("select count(*) from graphile_worker.pauses") for db in dbs] == [1, 1]
    for db in dbs:
        add(db)
    gw(dbs, "fail", "--task", "t", "--yes")
    assert [db.value("select min(attempts) from graphile_worker.jobs") for db in dbs] == [25, 25]


def test_the_dashboard_shows_each(dbs: list[Database]) -> None:
    for number, db in enumerate(dbs):
        add(db, f"task_{number}")
    given = [part for db in dbs for part in ("--dsn", db.dsn)]
    command = [sys.executable, "-m", "graphile_worker.gw.cli", "ui", "--port", "0", *given]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = next(
            found for line in process.stderr if (found := re.search(r"http://\S+", line))
        )
        for number, db in enumerate(dbs):
            place = urllib.parse.quote(place_of(db.dsn).replace("/", " "))
            with urllib.request.urlopen(f"{address[0]}/{place}/") as response:
                page = response.read().decode()
            assert f"task_{number}" in page
            assert all(place_of(each.dsn).replace("/", " ") in page for each in dbs)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_one_that_is_away_is_told_and_the_others_answer(dbs: list[Database]) -> None:
    away = Database(dbs[0].dsn, "not_there", 18)
    add(dbs[1], "seen")
    out, err = gw([dbs[0], away, dbs[1]], "stats", code=1)
    assert place_of(away.dsn) in err
    assert "cannot connect" in err
    assert "seen" in out
    out, _ = gw([away, dbs[1]], "stats", "--json", code=1)
    assert [each["answer"] is None for each in json.loads(out)] == [True, False]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["add", "t"], "for one database"),
        (["explain", "1"], "for one database"),
        (["top"], "needs --once"),
        (["ui", "--database", "a=b"], "each with --database"),
        (["retry", "1"], "its own ids"),
        (["schedule", "set", "daily", "t", "@daily"], "set a schedule in one"),
        (["schedule", "run", "daily"], "set a schedule in one"),
        (["stats", "--citus"], "pass one --dsn"),
    ],
)
def test_what_is_of_one_database_is_refused(dbs: list[Database], args: list[str], why: str) -> None:
    _, err = gw(dbs, *args, code=1)
    assert why in err


def test_each_command_takes_several_or_refuses_them(dbs: list[Database]) -> None:
    """None uses the first alone and says nothing of the others."""
    for name in COMMANDS.keys() - {
        "run",
        "completion",
        "conformance",
        "import",
        "ui",
        "mcp",
        "top",
    }:
        text, _ = run_main(main, [name, "--help"], env={})
        assert "--citus" in text, name
