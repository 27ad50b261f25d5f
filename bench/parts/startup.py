"""How long programs take to start: an import, the help, and a worker until its first job."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from server import Bench

from parts.drain import OURS

TASKS = """
import time
from graphile_worker import Tasks
tasks = Tasks()
@tasks.task("t")
async def t() -> None:
    print(time.time(), flush=True)
"""
BIN = Path(sys.executable).parent


def _python(code: str) -> Callable[[], float]:
    return _program(sys.executable, "-c", code)


def _program(*command: str | Path) -> Callable[[], float]:
    """Return what measures how many milliseconds a program takes."""

    def measure() -> float:
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return 1000 * (time.perf_counter() - started)

    return measure


def startup(bench: Bench) -> None:
    """Measure all of it."""
    names = "add_job, add_jobs, Tasks, WorkerUtils"
    bench.compare(
        "import",
        {
            "ours": _python(f"import psycopg; from graphile_worker import {names}"),
            "psycopg alone": _python("import psycopg"),
            "Procrastinate": _python("import psycopg; from procrastinate import App"),
            "PgQueuer": _python("import asyncpg; from pgqueuer import PgQueuer, Queries"),
        },
        unit=" ms",
    )
    bench.compare(
        "help",
        {
            "ours": _program(BIN / "gw", "--help"),
            "Python alone": _python("pass"),
            "Procrastinate": _program(BIN / "procrastinate", "--help"),
            "PgQueuer": _program(BIN / "pgq", "--help"),
        },
        unit=" ms",
    )
    bench.prepare([OURS])
    with tempfile.TemporaryDirectory() as folder, bench.copy(OURS) as dsn:
        (Path(folder) / "tasks.py").write_text(TASKS)
        bench.compare("gw run to the start of its first job", {
            "ours": lambda: _first_job(bench, folder, dsn)
        }, unit=" ms")  # fmt: skip


def _first_job(bench: Bench, folder: str, dsn: str) -> float:
    command: list[str | Path] = [
        BIN / "gw",
        "run",
        "tasks",
        "--once",
        "--log-level",
        "error",
        "--dsn",
        dsn,
    ]
    subprocess.run(
        [BIN / "gw", "add", "t", "--json", "--dsn", dsn], check=True, stdout=subprocess.DEVNULL
    )
    started = time.time()
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return 1000 * (float(done.stdout) - started)
