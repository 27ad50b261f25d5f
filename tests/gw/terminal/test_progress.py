"""The bar of what takes longer than a second, in a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from graphile_worker.cli import progress
from graphile_worker.gw import change
from graphile_worker.gw.cli import main
from graphile_worker.install import install
from support.pg import Database, wait_for

pytestmark = pytest.mark.majors(18)

FAILED = """
    select graphile_worker.add_job('t', max_attempts => 1) from generate_series(1, 50);
    update graphile_worker._private_jobs set attempts = max_attempts
"""


class Terminal:
    """A terminal as stderr of this process or another."""

    def __init__(self) -> None:
        self._outer, self.inner = pty.openpty()
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._outer)

    def shows(self, text: str) -> bool:
        self.seen += os.read(self._outer, 65536).decode(errors="replace")
        return text in self.seen


@pytest.mark.parametrize(
    "command",
    [
        ["retry", "--all-failed", "--yes"],
        ["discard", "--all-failed", "--yes"],
        ["cancel", "--task", "t", "--state", "ready", "--yes"],
    ],
    ids=lambda command: command[0],
)
def test_a_change_of_many_jobs_shows_how_many_are_done(
    db: Database, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    for statement in FAILED.split(";"):
        db.rows(statement)
    if command[0] == "cancel":
        db.rows("update graphile_worker._private_jobs set attempts = 0")
    monkeypatch.setattr(progress, "AFTER", 0)
    monkeypatch.setattr(change, "AT_ONCE", 10)
    monkeypatch.setenv("TERM", "xterm")
    advanced, advance = list[int](), progress.Bar.advance

    def noted(bar: progress.Bar, steps: int) -> None:
        advanced.append(steps)
        advance(bar, steps)

    monkeypatch.setattr(progress.Bar, "advance", noted)
    with Terminal() as terminal, os.fdopen(terminal.inner, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        assert main([*command, "--dsn", db.dsn]) == 0
        stderr.flush()
        assert terminal.shows(command[0])
    assert advanced == [10] * 5


def test_without_a_terminal_nothing_is_shown(
    db: Database, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for statement in FAILED.split(";"):
        db.rows(statement)
    monkeypatch.setattr(progress, "AFTER", 0)
    assert main(["cleanup", "failed-jobs", "--yes", "--dsn", db.dsn]) == 0
    assert capfd.readouterr().err == ""


def test_a_change_of_the_schema_tells_what_it_waits_for(empty_db: Database) -> None:
    install(empty_db.connect(), mode="plain")
    conn = empty_db.connect()
    conn.execute("begin")
    conn.execute("lock table graphile_worker._private_jobs in access share mode")
    with Terminal() as terminal:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "graphile_worker.install.cli", "uninstall", "--dsn", empty_db.dsn,
                "--lock-timeout", "0.1",
            ],
            stdout=subprocess.PIPE, stderr=terminal.inner, text=True, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        )  # fmt: skip
        os.close(terminal.inner)
        wait_for(lambda: terminal.shows("waits: canceling statement due to lock timeout"))
        conn.execute("rollback")
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Removed" in out
