"""gw drain-node: the waiting jobs of a database are moved, each once, whatever happens meanwhile."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from graphile_worker.gw.cli import build_parser, main
from graphile_worker.gw.cluster import move as moves
from graphile_worker.gw.cluster.move import Move
from graphile_worker.gw.queue import opened
from graphile_worker.testing import embedded
from sql.fetch.claims import add
from support.command_line import run_main
from support.pg import Database, wait_for

pytestmark = pytest.mark.majors(18)

WHOLE = """
    select tasks.identifier, queue_name, payload::text, priority, run_at::text, attempts, max_attempts,
      last_error, created_at, updated_at, key, revision, flags
    from graphile_worker._private_jobs as jobs
    join graphile_worker._private_tasks as tasks on tasks.id = task_id
    left join graphile_worker._private_job_queues as queues on queues.id = job_queue_id
    order by jobs.id
"""
COUNT = "select count(*) from graphile_worker._private_jobs"
NUMBERS = "select (payload ->> 'n')::int from graphile_worker._private_jobs"


@pytest.fixture(scope="module")
def private() -> Iterator[embedded.Server]:
    with embedded.Server(settings={"max_prepared_transactions": "10"}) as server:
        yield server


@pytest.fixture
def pair(private: embedded.Server, request: pytest.FixtureRequest) -> Iterator[list[Database]]:
    base = private.dsn().removesuffix(" dbname=postgres")
    with ExitStack() as stack, psycopg.connect(private.dsn(), autocommit=True) as admin:
        dbs = []
        for name in ("node_a", "node_b"):
            name = f"{name}_{uuid.uuid4().hex}"
            admin.execute(f"create database {name}")
            dbs.append(Database(base, name, 18))
            stack.callback(dbs[-1].close)
            dbs[-1].rows("create extension graphile_worker")
        yield dbs


def drain(pair: list[Database], *, code: int = 0) -> tuple[str, str]:
    args = ["drain-node", "--dsn", pair[0].dsn, "--to", pair[1].dsn]
    return run_main(main, args, code=code, env={})


@contextmanager
def moving(pair: list[Database]) -> Iterator[Move]:
    def options(db: Database) -> argparse.Namespace:
        given = build_parser().parse_args(["drain-node", "--dsn", db.dsn])
        given.prog = "gw"
        return given

    with opened(options(pair[0])) as source, opened(options(pair[1])) as target:
        yield Move(source, target)


def test_jobs_of_every_state_are_the_same_there(pair: list[Database]) -> None:
    here, there = pair
    add(here, "now", queue_name="q 1", job_key="k", priority=3, flags=["a"], max_attempts=4)
    add(here, "later", queue_name="q 1", run_at="2100-01-01")
    add(here, "never", run_at="infinity")
    failed = add(here, "failed", max_attempts=1)
    here.rows(
        "select graphile_worker.permanently_fail_jobs(array[%s]::bigint[], 'odd: ''%%\"')", failed
    )
    here.rows(
        r"""update graphile_worker._private_jobs set payload = '{"b":  1.50, "a": "\u00e4%s"}'"""
    )
    before = here.rows(WHOLE)
    out, _ = drain(pair)
    assert out == "Moved 4 jobs. No job is left.\n"
    assert there.rows(WHOLE) == before
    assert here.value(COUNT) == 0
    assert drain(pair)[0] == "Moved 0 jobs. No job is left.\n"


def test_a_key_that_is_in_use_there_stays_with_the_job_that_has_it(pair: list[Database]) -> None:
    here, there = pair
    add(there, "first", job_key="k")
    add(here, "second", job_key="k")
    out, _ = drain(pair)
    assert "1 of them without the key" in out
    keys = "select task_identifier, key from graphile_worker.jobs order by id"
    assert there.rows(keys) == [("first", "k"), ("second", None)]


TASKS = """
import asyncio, os
from graphile_worker import Tasks
from graphile_worker.worker import context

tasks = Tasks()

@tasks.task("note")
async def note(n: int) -> None:
    queue = context().job.queue_name or ""
    for event in ("start", "end"):
        with open("ran", "a") as file:
            file.write(f"{event} {n} {queue}\\n")
        await asyncio.sleep(0.005)
"""


def test_each_job_runs_once_while_both_have_workers(pair: list[Database], tmp_path: Path) -> None:
    here, there = pair
    (tmp_path / "tasks.py").write_text(TASKS)
    here.rows(
        "select graphile_worker.add_job('note', json_build_object('n', n),"
        " queue_name := case when n % 3 > 0 then 'q' || n % 7 end)"
        " from generate_series(1, 3000) as n"
    )
    command = [sys.executable, "-m", "graphile_worker.gw.cli", "run", "-c", "8"]
    workers = [
        subprocess.Popen(
            [*command, "--dsn", db.dsn], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        for db in pair
    ]
    try:
        wait_for(lambda: (tmp_path / "ran").exists())
        drain(pair)
        assert here.value(COUNT) == 0
        wait_for(lambda: there.value(COUNT) == 0)
    finally:
        for worker in workers:
            worker.terminate()
            print(worker.communicate(timeout=90)[1])
    lines = [line.split(" ") for line in (tmp_path / "ran").read_text().splitlines()]
    assert Counter(int(n) for event, n, _ in lines if event == "start") == dict.fromkeys(
        range(1, 3001), 1
    )
    running: dict[str, str] = {}
    for event, n, queue in lines:
        if queue and event == "start":
            assert queue not in running, "two jobs of a queue ran at once"
            running[queue] = n
        elif queue:
            assert running.pop(queue) == n


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("answered", [False, True])
def test_no_job_is_lost_or_doubled_where_a_round_ends_half_way(
    pair: list[Database], step: int, answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    for n in range(20):
        add(here, "t", payload=json.dumps({"n": n}), queue_name="q" if n % 2 else None)
    calls, real = [0], moves._finish

    def failing(*args: Any) -> None:
        calls[0] += 1
        if calls[0] == step + 1:
            if answered:
                real(*args)
            raise KeyboardInterrupt
        real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(moves, "_finish", failing)
        with pytest.raises(KeyboardInterrupt), moving(pair) as move:
            move.round()
    assert drain(pair)[0].endswith("No job is left.\n")
    assert here.value(COUNT) == 0
    assert sorted(there.column(NUMBERS)) == list(range(20))
    for db in pair:
        assert db.value("select count(*) from pg_prepared_xacts") == 0


def test_a_move_that_did_not_end_goes_on_only_to_its_target(
    pair: list[Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    add(here, "t", payload='{"n": 1}')
    real = moves._finish

    def failing(queue: Any, how: Any, gid: str) -> None:
        if how == "commit prepared":
            raise KeyboardInterrupt
        real(queue, how, gid)

    with monkeypatch.context() as patched:
        patched.setattr(moves, "_finish", failing)
        with pytest.raises(KeyboardInterrupt), moving(pair) as move:
            move.round()
    other = Database(here.base, "postgres", 18)
    other.rows("create extension if not exists graphile_worker")
    _, err = drain([here, other], code=1)
    assert "a move to another database has not ended" in err
    assert drain(pair)[0]
    assert there.column(NUMBERS) == [1]
    other.rows("drop extension graphile_worker")
    other.close()


def test_what_cannot_be_moved_is_refused(pair: list[Database]) -> None:
    here, _ = pair
    add(here, "t")
    assert "same database" in drain([here, here], code=1)[1]
    with embedded.Server(settings={"max_prepared_transactions": "0"}) as server:
        unprepared = Database(server.dsn().removesuffix(" dbname=postgres"), "postgres", 18)
        unprepared.rows("create extension graphile_worker")
        assert "max_prepared_transactions" in drain([here, unprepared], code=1)[1]
        unprepared.close()
    here.rows("select graphile_worker.schedule('daily', 't', '@daily')")
    assert "the schedules daily would add jobs no more" in drain(pair, code=1)[1]
    assert here.value(COUNT) == 1
    _, err = run_main(main, ["drain-node", "--dsn", here.dsn], code=1, env={})
    assert "--to" in err
