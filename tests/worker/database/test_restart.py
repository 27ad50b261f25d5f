"""Immediate restarts of the server under load: what was committed runs, once, on the same workers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from graphile_worker.testing import embedded
from support.fleet import Feeder, Process
from support.pg import Database, Server, bin_dir, wait_for
from support.ran import TABLE, left_behind, overlaps

WORKERS = 3
#: Lines that each worker may log for each restart.
MOST_LINES = 8


@pytest.fixture
def fragile(server: Server) -> Iterator[embedded.Server]:
    settings = {"max_connections": "50", "timezone": "'UTC'"}
    private = embedded.Server(bin_dir(server.major), settings=settings)
    with private:
        with psycopg.connect(private.dsn(), autocommit=True) as conn:
            conn.execute("create extension graphile_worker")
        yield private


def said(worker: Process) -> list[list[object]]:
    return [json.loads(line) for line in worker.output.read_text().splitlines()]


def losses(worker: Process) -> int:
    return worker.log.read_text().count("fetching jobs failed")


@pytest.mark.majors(13, 18)
@pytest.mark.parametrize(
    "rounds", [pytest.param(2, id="2"), pytest.param(10, id="10", marks=pytest.mark.slow)]
)
def test_committed_jobs_run_once_on_the_same_workers_however_often_the_server_crashes(
    fragile: embedded.Server,
    server: Server,
    tmp_path: Path,
    rounds: int,
    record_property: Callable[[str, object], None],
) -> None:
    db = Database(fragile.dsn().removesuffix(" dbname=postgres"), "postgres", server.major)
    workers = [Process(fragile.dsn(), tmp_path) for _ in range(WORKERS)]
    try:
        with Feeder(fragile.dsn(), "say") as feeder:
            for n in range(rounds):
                for worker in workers:
                    enough = len(said(worker)) + random.randint(10, 40)
                    worker.wait_for(
                        lambda worker=worker, enough=enough: len(said(worker)) >= enough,  # type: ignore[misc]
                        "it runs jobs again",
                    )
                lost = [losses(worker) for worker in workers]
                fragile.crash()
                if n % 2:  # else it is back before some have noticed
                    for worker, before in zip(workers, lost, strict=True):
                        worker.wait_for(
                            lambda worker=worker, before=before: losses(worker) > before,  # type: ignore[misc]
                            "it cannot take jobs",
                        )
                fragile.start()
            seen = len(feeder.added)
            wait_for(lambda: len(feeder.added) >= seen + 50, "jobs are added again")
        wait_for(lambda: left_behind(db)[0] == 0, "all jobs are done")
        for worker in workers:
            worker.stop()
        assert left_behind(db) == (0, 0, 0)
        assert db.value("select count(*) from graphile_worker.workers") == 0
        db.rows(TABLE)
        for worker in workers:
            for run in said(worker):
                db.rows(
                    "insert into public.ran (job_id, attempt, queue_name, worker, started, ended)"
                    " values (%s, %s, %s, %s, to_timestamp(%s), to_timestamp(%s))",
                    *run,
                )
        runs, jobs = db.row("select count(*), count(distinct job_id) from public.ran")
        lines = max(len(worker.log.read_text().splitlines()) for worker in workers)
        record_property(
            "restarts",
            f"{rounds} restarts, {len(feeder.added)} jobs committed for sure, {jobs} ran, {runs} runs,"
            f" at most {lines} lines in a log",
        )
        # What was committed without an answer runs, too.
        assert set(feeder.added) <= set(db.column("select job_id from public.ran"))
        assert runs == jobs, "each once"
        assert db.column("select distinct attempt from public.ran") == [1]
        assert overlaps(db, "queue_name") == 0
        assert lines <= MOST_LINES * rounds
    finally:
        db.close()
        for worker in workers:
            worker.kill()
