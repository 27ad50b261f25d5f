"""A standby takes over from a primary that is gone: committed jobs run, and nothing stays locked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graphile_worker.testing.embedded import free_port, unprivileged
from psycopg.conninfo import conninfo_to_dict
from support.fleet import Feeder, Process
from support.fragile import FragileServer
from support.pg import CLIENTS, Database, Server, bin_dir, run, wait_for
from support.ran import left_behind

G = "graphile_worker"


def ran(worker: Process) -> list[int]:
    return [json.loads(line)[0] for line in worker.output.read_text().splitlines()]


@pytest.mark.majors(18)
def test_workers_go_on_at_the_standby_that_takes_over(server: Server, tmp_path: Path) -> None:
    settings = {
        "max_connections": "50", "wal_level": "replica", "max_wal_senders": "5",
        "synchronous_standby_names": "'*'", "synchronous_commit": "local",
    }  # fmt: skip
    primary = FragileServer(bin_dir(server.major), settings=settings)
    pg_ctl = unprivileged(bin_dir(server.major) / "pg_ctl", tmp_path / "bin")
    basebackup = unprivileged(CLIENTS[18] / "pg_basebackup", tmp_path / "bin")
    copy, port, log = tmp_path / "standby", free_port(), tmp_path / "log"
    tmp_path.chmod(0o777)
    with primary:
        at = conninfo_to_dict(primary.dsn())
        run([basebackup, "-d", primary.dsn(), "-D", copy, "-R", "-X", "stream", "-c", "fast"])
        options = (
            f"-p {port} -c unix_socket_directories= -c listen_addresses=127.0.0.1"
            " -c synchronous_standby_names="
        )
        run([pg_ctl, "-D", copy, "-w", "-o", options, "-l", log, "start"])
        try:
            both = (
                f"host={at['host']},127.0.0.1 port={at['port']},{port} user={at['user']}"
                " dbname=postgres target_session_attrs=read-write connect_timeout=5"
            )
            db = Database(f"host={at['host']} port={at['port']} user={at['user']}", "postgres", 18)
            db.rows(f"create extension {G}")
            db.rows(f"select {G}.set_recovery(interval '2 seconds')")
            # From here on a commit is at the standby, too.
            db.rows("alter system set synchronous_commit = on")
            db.rows("select pg_reload_conf()")
            workers = [Process(both, tmp_path) for _ in range(2)]
            try:
                with Feeder(both, "say") as feeder:
                    wait_for(lambda: len(feeder.added) > 100)
                    wait_for(lambda: all(len(ran(worker)) > 50 for worker in workers))
                    db.close()
                    primary.crash()
                    run([pg_ctl, "-D", copy, "-w", "promote"])
                    added = len(feeder.added)
                    wait_for(lambda: len(feeder.added) > added + 50, "jobs are added again")
                new = Database(f"host=127.0.0.1 port={port} user={at['user']}", "postgres", 18)
                wait_for(lambda: left_behind(new) == (0, 0, 0), "all jobs are done")
                assert {job for worker in workers for job in ran(worker)} >= set(feeder.added)
                for worker in workers:
                    worker.stop()
                assert new.rows(f"select from {G}.workers") == []
                new.close()
            finally:
                for worker in workers:
                    worker.kill()
            primary.recover()
        finally:
            run([pg_ctl, "-D", copy, "-m", "immediate", "stop"], check=False)
