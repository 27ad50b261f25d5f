"""gw as a program, and in this process, which is faster."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any
from unittest.mock import patch

import psycopg
from graphile_worker.gw.cli import main
from graphile_worker.gw.queue import Queue
from support.pg import Database


def program(
    db: Database, *args: object, code: int = 0, stdin: str = "", env: dict[str, str] | None = None
) -> str:
    """Run gw as a program; return its stdout, or its stderr if it is to fail."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "graphile_worker.gw.cli", *map(str, args)],
        capture_output=True, text=True, input=stdin, timeout=120,
        env={**os.environ, "GW_DSN": db.dsn, **(env or {})},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code in (0, 3) else done.stderr


def gw(
    db: Database, *args: object, code: int = 0, stdin: str = "", env: dict[str, str] | None = None
) -> str:
    """Run gw in this process, which is faster; return what ``program`` returns."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, {"GW_DSN": db.dsn, **(env or {})}),
        patch.object(sys, "stdin", io.StringIO(stdin)),
        redirect_stdout(out), redirect_stderr(err),
    ):  # fmt: skip
        try:
            found: object = main([str(arg) for arg in args])
        except SystemExit as ended:
            found = ended.code
    assert found == code, out.getvalue() + err.getvalue()
    return out.getvalue() if code in (0, 3) else err.getvalue()


def said(db: Database, *args: object, code: int = 0) -> tuple[str, str]:
    """Run a command of gw in this process; return its stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        found = main([*map(str, args), "--dsn", db.dsn])
    assert found == code, out.getvalue() + err.getvalue()
    return out.getvalue(), err.getvalue()


def answer(db: Database, *args: object, code: int = 0) -> Any:
    """Run a command of gw in this process; return its JSON."""
    out, err = said(db, *args, "--json", code=code)
    return json.loads(out) if out else err


def queue(db: Database, **options: Any) -> Queue:
    """Return the queue of a database, through a connection of its own."""
    conn: psycopg.Connection[Any] = db.connect()
    return Queue(conn, **options)
