"""gw as a program, and in this process, which is faster."""

from __future__ import annotations

import json
import sys
from typing import Any

import psycopg
from graphile_worker.gw.cli import main
from graphile_worker.gw.queue import Queue
from support.command_line import run_main, run_program
from support.pg import Database


def program(
    db: Database, *args: object, code: int = 0, stdin: str = "", env: dict[str, str] | None = None
) -> str:
    """Run gw as a program; return its stdout, or its stderr if it is to fail."""
    command = [sys.executable, "-W", "error", "-m", "graphile_worker.gw.cli", *args]
    return run_program(command, code=code, env={"GW_DSN": db.dsn, **(env or {})}, stdin=stdin)


def gw(
    db: Database, *args: object, code: int = 0, stdin: str = "", env: dict[str, str] | None = None
) -> str:
    """Run gw in this process, which is faster; return what ``program`` returns."""
    env = {"GW_DSN": db.dsn, **(env or {})}
    out, err = run_main(main, args, code=code, env=env, stdin=stdin)
    return out if code in (0, 3) else err


def said(db: Database, *args: object, code: int = 0) -> tuple[str, str]:
    """Run a command of gw in this process; return its stdout and stderr."""
    return run_main(main, [*args, "--dsn", db.dsn], code=code, env={})


def answer(db: Database, *args: object, code: int = 0) -> Any:
    """Run a command of gw in this process; return its JSON."""
    out, err = said(db, *args, "--json", code=code)
    return json.loads(out) if out else err


def queue(db: Database, **options: Any) -> Queue:
    """Return the queue of a database, through a connection of its own."""
    conn: psycopg.Connection[Any] = db.connect()
    return Queue(conn, **options)
