"""What the Python client costs beside bare psycopg, on the same connection and in the same run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import graphile_worker as gw
import psycopg
from graphile_worker.client.statements import statement
from peers.ours import Ours

if TYPE_CHECKING:
    from server import Bench

PAYLOAD = {"to": "somebody@example.org", "n": 1}
MANY = 20_000
OURS = Ours(name="ours")


def _rate(conn: psycopg.Connection[Any], call: Callable[[], object], seconds: float) -> float:
    conn.execute("truncate graphile_worker._private_jobs")
    done, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        for _ in range(20):
            call()
        done += 20
    return done / (time.perf_counter() - start)


def adding(bench: Bench) -> None:
    """One job a call: the client, and the same SQL with the same values by bare psycopg."""
    same = statement("add_job")
    names = (
        "identifier", "payload", "queue_name", "run_at", "delay", "max_attempts", "job_key",
        "priority", "flags", "job_key_mode",
    )  # fmt: skip
    for commit in ("off", "on"):
        with bench.copy(OURS) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(f"set synchronous_commit = {commit}")

            def bare(conn: psycopg.Connection[Any] = conn) -> None:
                values: dict[str, Any] = dict.fromkeys(names)
                values["identifier"] = "bench"
                values["payload"] = json.dumps(PAYLOAD)
                conn.execute(same.encoded, values).fetchone()

            def ours(conn: psycopg.Connection[Any] = conn) -> None:
                gw.add_job("bench", PAYLOAD, conn=conn)

            bench.compare(
                f"client add_job, commit {commit}",
                {
                    "client": partial(_rate, conn, ours, bench.sizes.seconds),
                    "bare psycopg": partial(_rate, conn, bare, bench.sizes.seconds),
                },
            )


def adding_many(bench: Bench) -> None:
    """Many jobs: the client, and psycopg's COPY of equal rows into an equal table."""
    payloads = [{"to": f"user{n}@example.org", "n": n} for n in range(MANY)]
    with bench.copy(OURS) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("set synchronous_commit = off")
        conn.execute("create table equal (like graphile_worker._private_jobs including all)")
        columns = "task_id, payload, run_at, max_attempts, priority"
        run_at = conn.execute("select now()").fetchone()

        def copy() -> float:
            conn.execute("truncate equal")
            start = time.perf_counter()
            with conn.cursor().copy(f"copy equal ({columns}) from stdin") as rows:
                for payload in payloads:
                    rows.write_row((1, json.dumps(payload), run_at and run_at[0], 25, 0))
            return MANY / (time.perf_counter() - start)

        def ours() -> float:
            conn.execute("truncate graphile_worker._private_jobs")
            start = time.perf_counter()
            gw.add_jobs((gw.JobSpec("bench", payload) for payload in payloads), conn=conn)
            return MANY / (time.perf_counter() - start)

        bench.compare(f"client add_jobs of {MANY:,}", {"client": ours, "COPY": copy})


def importing(bench: Bench) -> None:
    """The milliseconds that importing every public name takes after psycopg."""
    code = (
        "import time, psycopg; start = time.perf_counter();"
        "import graphile_worker, graphile_worker.aio;"
        "[getattr(graphile_worker, name) for name in graphile_worker.__all__];"
        "print(1000 * (time.perf_counter() - start))"
    )
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, capture_output=True)
    taken = [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(4 * bench.sizes.rounds)
    ]
    bench.report("import after psycopg", " ms", {"client": list(taken)})


def measure(bench: Bench) -> None:
    """Run all of these."""
    bench.prepare([OURS])
    adding(bench)
    adding_many(bench)
    importing(bench)
