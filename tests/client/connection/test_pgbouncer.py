"""Through pgbouncer, which gives each transaction whichever server connection is free."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import graphile_worker as gw
import pytest
from support.bouncer import NEEDS_PGBOUNCER, pgbouncer
from support.pg import Database

from client.faces import Face


@pytest.fixture
def bouncer(db: Database, tmp_path: Path) -> Iterator[str]:
    """The connection string of a pgbouncer in transaction mode."""
    with pgbouncer(db, tmp_path) as dsn:
        yield dsn


@NEEDS_PGBOUNCER
def test_every_verb_works_in_transaction_mode(face: Face, db: Database, bouncer: str) -> None:
    trouble: list[BaseException] = []

    def client(number: int) -> None:
        try:
            with gw.WorkerUtils(bouncer, prepare=False, max_connections=2) as utils:
                for n in range(20):
                    utils.add_job("t", {"n": n}, job_key=f"k{number}-{n % 5}")
        except BaseException as error:
            trouble.append(error)

    threads = [threading.Thread(target=client, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == []
    assert db.value("select sum(revision + 1) from graphile_worker.jobs") == 80
    with face.utils(bouncer, prepare=False) as utils:
        jobs = utils.add_jobs([("t", {})] * 10, chunk_size=3)
        assert utils.get_job(jobs[0].id) == jobs[0]
        assert len(utils.complete_jobs([job.id for job in jobs])) == 10
        assert utils.cleanup("failed_jobs", "queues", "tasks").tasks == 0
        assert utils.counts().ready == 20
    conn = face.connect(bouncer, prepare_threshold=None)
    for _ in range(8):
        face.add_job("t", conn=conn)
    face.run(conn.rollback())
    face.run(conn.close())
    assert db.value("select count(*) from graphile_worker.jobs") == 20
