"""Through pgbouncer, which gives each transaction whichever server connection is free."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import graphile_worker as gw
import psycopg
import pytest
from graphile_worker.embedded import free_port, unprivileged
from pg import Database, wait_for

from client.faces import Face

PGBOUNCER = Path("/usr/sbin/pgbouncer")


@pytest.fixture
def bouncer(db: Database, tmp_path: Path) -> Iterator[str]:
    """The connection string of a pgbouncer in transaction mode, with two connections to the server."""
    info = db.connect().info
    port = free_port()
    config = tmp_path / "pgbouncer.ini"
    config.write_text(f"""
[databases]
{db.name} = host={info.host} port={info.port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
""")
    program = unprivileged(PGBOUNCER, tmp_path / "bin")
    dsn = f"host=127.0.0.1 port={port} user=postgres dbname={db.name}"
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen([str(program), str(config)], stdout=output, stderr=output)
    try:

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                psycopg.connect(dsn).close()
            except psycopg.OperationalError:
                return False
            return True

        wait_for(answers)
        yield dsn
    finally:
        process.terminate()
        process.wait(30)


# Only root can have been given it by `make test`; anybody else may have it.
@pytest.mark.skipif(os.geteuid() != 0 and not PGBOUNCER.exists(), reason="pgbouncer is Debian's")
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
