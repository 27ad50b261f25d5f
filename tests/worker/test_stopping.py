"""A stop takes the grace and ten seconds at most, a second signal three, whatever the server does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from graphile_worker.testing.network import Network
from support.live import add, work_dsn
from support.pg import Database, wait_for

pytestmark = pytest.mark.majors(18)
G = "graphile_worker"
TASKS = """
import asyncio, time

async def quick(payload):
    await asyncio.sleep(payload.get("seconds", 0))

async def blocks(payload):
    while True:
        time.sleep(0.1)

async def stubborn(payload):
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

tasks = {"quick": quick, "blocks": blocks, "stubborn": stubborn}
"""
GRACE = 1
#: The bounds that the documentation gives, and what a slow machine adds to them.
BOUND, FORCED, SLOW = GRACE + 10, 3, 15


@contextmanager
def gw_run(db: Database, folder: Path, dsn: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    (folder / "app.py").write_text(TASKS)
    command = [
        sys.executable, "-m", "graphile_worker.gw.cli", "run", "app", "--grace", str(GRACE),
        "--poll-interval", "0.5", *options,
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "GW_DSN": dsn}, stderr=log, text=True
        )
    try:
        wait_for(lambda: db.rows(f"select from {G}.workers") or process.poll() is not None)
        yield process
    finally:
        process.kill()
        process.wait(30)
        print((folder / "log").read_text()[-3000:])


def stopped(process: subprocess.Popen[str], *signals: int) -> int:
    """Signal, and return the exit code; fail where the bound is missed."""
    for number in signals:
        process.send_signal(number)
        time.sleep(0.2)  # two of a kind at once are one
    return process.wait((FORCED if len(signals) > 1 else BOUND) + SLOW)


@pytest.fixture
def network(db: Database) -> Iterator[Network]:
    made = Network(work_dsn(db))
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    ("processes", "signals"),
    [("1", [signal.SIGTERM]), ("1", [signal.SIGTERM, signal.SIGINT]), ("2", [signal.SIGTERM])],
    ids=["one signal", "two signals", "two processes"],
)
def test_a_worker_whose_server_answers_nothing_can_be_stopped(
    db: Database, network: Network, tmp_path: Path, signals: list[int], processes: str
) -> None:
    with gw_run(db, tmp_path, network.dsn, "--processes", processes) as process:
        add(db, "quick", '{"seconds": 1}', ", 'q'")
        wait_for(lambda: db.rows(f"select from {G}.jobs where locked_at is not null"))
        network.swallow()
        assert stopped(process, *signals) != 0
        log = (tmp_path / "log").read_text()
        found = re.search(r"(\d+) results were not written, and (\d+) jobs may still", log)
        assert found is not None, log
    assert db.column(f"select count(*) from {G}.jobs where locked_at is not null") == [1]


def test_a_worker_that_is_stopped_while_it_starts_ends_its_id(db: Database, tmp_path: Path) -> None:
    locking = db.connect()
    with locking.transaction():
        locking.execute(f"lock {G}.migrations")  # read after the first heartbeat
        with gw_run(db, tmp_path, work_dsn(db)) as process, db.connect() as other:
            workers = f"select count(*) from {G}._private_heartbeats"
            wait_for(lambda: other.execute(workers).fetchone() == (1,))
            assert stopped(process, signal.SIGTERM) == 0
            assert other.execute(workers).fetchone() == (0,)


def test_a_worker_on_a_read_only_server_can_be_stopped(db: Database, tmp_path: Path) -> None:
    with gw_run(db, tmp_path, work_dsn(db)) as process:
        db.rows(f"alter database {db.name} set default_transaction_read_only = on")
        db.rows(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
        wait_for(lambda: "read-only" in (tmp_path / "log").read_text())
        assert stopped(process, signal.SIGTERM) == 1
        assert "the worker leaves before the database has heard" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("task", "processes"), [("blocks", "1"), ("blocks", "2"), ("stubborn", "1")]
)
def test_a_task_that_goes_on_keeps_no_worker(
    db: Database, tmp_path: Path, task: str, processes: str
) -> None:
    with gw_run(db, tmp_path, work_dsn(db), "--processes", processes) as process:
        add(db, task)
        wait_for(lambda: db.rows(f"select from {G}.jobs where locked_at is not null"))
        assert stopped(process, signal.SIGTERM) == 1


def test_a_server_that_answers_nothing_is_noticed_and_told_of(
    db: Database, network: Network, tmp_path: Path
) -> None:
    db.rows(f"select {G}.set_recovery(interval '6 seconds')")
    with gw_run(db, tmp_path, network.dsn) as process:
        add(db, "quick")
        wait_for(lambda: db.rows(f"select from {G}.jobs") == [], "the worker has started")
        network.swallow()
        wait_for(lambda: "heartbeat failed" in (tmp_path / "log").read_text(), "it is noticed")
        network.heal()
        add(db, "quick")
        wait_for(lambda: db.rows(f"select from {G}.jobs") == [], "the worker goes on")
        assert stopped(process, signal.SIGTERM) == 0
