"""Nothing of a queue is lost by pg_dump, pg_restore and pg_upgrade."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from graphile_worker.install import install, uninstall, verify
from graphile_worker.testing.embedded import free_port, install_files, unprivileged
from support.pg import CLIENTS, Database, Server, run, wait_for

TABLES = (
    "_private_jobs", "_private_tasks", "_private_job_queues", "_private_known_crontabs",
    "_private_heartbeats", "_private_ended_workers", "_private_crashes", "_private_settings",
    "_private_pauses", "_private_limits", "_private_limit_states", "_private_cancellations", "_private_schedules",
    "_private_histories", "_private_history", "_private_history_partitions", "_private_attempts",
    "_private_progress", "_private_result_waits", "_private_dead_letters", "migrations where id > 20",
)  # fmt: skip
SEQUENCES = ("jobs_id_seq1", "tasks_id_seq", "job_queues_id_seq")


def fill(db: Database) -> None:
    """Put every kind of row in: waiting, future, keyed, flagged, locked, failed, a crontab, a worker."""
    db.rows("alter sequence graphile_worker.jobs_id_seq1 restart with 4000000000")
    add = "select graphile_worker.add_job({})"
    db.rows(
        add.format("'a', '{\"b\": 1, \"a\": 2, \"b\": 3}', 'q1', job_key := 'k', flags := '{f}'")
    )
    db.rows(add.format("'b', '[1, 2]', run_at := '2099-01-01', priority := -3"))
    db.rows(add.format("'c', queue_name := 'q2'"))
    db.rows("select graphile_worker.get_jobs('worker', 1, '{a}')")
    db.rows("select graphile_worker.get_jobs('worker', 1, '{c}')")
    db.rows('select graphile_worker.fail_jobs(\'worker\', \'[{"id": 4000000002, "error": "é"}]\')')
    db.rows("insert into graphile_worker._private_known_crontabs values ('daily', now(), now())")
    db.rows("select graphile_worker.heartbeat('worker', '{a,c}', '{\"host\": \"h\"}')")
    db.rows("insert into graphile_worker._private_crashes values (4000000000, 2, now())")
    db.rows("select graphile_worker.set_recovery('1 second')")
    db.rows("select graphile_worker.end_worker('ended')")
    db.rows("select graphile_worker.pause_queue('tenant-*', now() + interval '1 day', 'é')")
    db.rows("select graphile_worker.set_limit('task', '*', 3, 5, '1 minute')")
    db.rows(
        "insert into graphile_worker._private_cancellations values (4000000000, 'é', 'x', now())"
    )
    db.rows("select graphile_worker.keep_history(keep => '2 days', payloads => true)")
    db.rows("select graphile_worker.on_dead_letter('notify', 'x')")
    db.rows("select graphile_worker.keep_failed_jobs('3 days')")
    db.rows("select graphile_worker.watch_results('w', 3600)")
    db.rows("select id from graphile_worker.add_job('c', max_attempts => 1)")
    db.rows("select graphile_worker.get_jobs('worker', 1, '{c}')")
    db.rows("select graphile_worker.report_progress('worker', 4000000003, 0.5, 'é')")
    db.rows("select graphile_worker.add_job('d', '{\"é\": 1}')")
    db.rows("select graphile_worker.cancel_jobs(array[4000000004])")
    db.rows('select graphile_worker.fail_jobs(\'worker\', \'[{"id": 4000000003, "error": "é"}]\')')
    db.rows("select graphile_worker.schedule('s', 't', '@daily', 'Europe/London', flags => '{f}')")
    db.rows("insert into graphile_worker.migrations (id) values (21)")  # of a later Node


def content(db: Database) -> list[object]:
    rows: list[object] = [
        db.rows(
            f"select t::text from (table graphile_worker.{t.split()[0]}) as t {' '.join(t.split()[1:])} order by 1"
        )
        for t in TABLES
    ]
    rows += [db.row(f"select last_value, is_called from graphile_worker.{s}") for s in SEQUENCES]
    return rows


def members(db: Database) -> list[tuple[object, ...]]:
    """Owner and grants of each object."""
    return db.rows(
        "select relname, pg_get_userbyid(relowner),"
        " coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::\"char\", relowner))::text, relrowsecurity from pg_class"
        " where relnamespace = 'graphile_worker'::regnamespace"
        " union all select proname, pg_get_userbyid(proowner), proacl::text, prosecdef from pg_proc"
        " where pronamespace = 'graphile_worker'::regnamespace order by 1, 2, 3"
    )


def client(server: Server) -> Path:
    return CLIENTS[18 if server.major == 18 else 17]


@pytest.mark.parametrize("mode", ["extension", "plain"])
@pytest.mark.parametrize("kind", ["plain", "custom"])
def test_a_dump_brings_back_every_row_lock_and_counter(
    server: Server, empty_db: Database, tmp_path: Path, kind: str, mode: Any
) -> None:
    owner, clerk = (f"{who}_{uuid.uuid4().hex}" for who in ("owner", "clerk"))
    for role in (owner, clerk):
        empty_db.rows(f"create role {role} login")
    empty_db.rows(f"grant create on database {empty_db.name} to {owner}")
    installer = empty_db.connect(role=owner)
    install(installer, mode=mode)
    installer.execute("select graphile_worker.grant_access(%s, 'enqueue')", (clerk,))
    fill(empty_db)
    file = tmp_path / "dump"
    dump: list[str | Path] = [
        client(server) / "pg_dump",
        "-d",
        empty_db.dsn,
        "-F",
        kind[0],
        "-f",
        file,
    ]
    run(dump)
    try:
        with server.database() as restored:
            if kind == "plain":
                run([client(server) / "psql", "-X", "-q", "-d", restored.dsn, "-f", file])
            else:
                run([client(server) / "pg_restore", "-d", restored.dsn, file], check=False)
            assert content(restored) == content(empty_db)
            assert members(restored) == members(empty_db)
            assert [d.what for d in verify(restored.connect())] == ["revision 21"]
            added = restored.connect(role=clerk).execute(
                "select id from graphile_worker.add_job('a')"
            )
            assert added.fetchone() == (4000000005,)
            wait_for(
                lambda: (
                    restored.rows("select * from graphile_worker.recover_dead_workers()")
                    == [("worker", 1, 1)]
                )
            )
            worker = restored.connect(role=owner)
            worker.execute("select graphile_worker.heartbeat('worker')")
            worker.execute("select graphile_worker.get_jobs('worker', 1, '{a}')")
            done = worker.execute(
                "select * from graphile_worker.finish_jobs('worker', '{4000000000}')"
            )
            assert done.fetchone() == (4000000000, True)
            uninstall(restored.connect(), with_jobs=True)
            restored.rows(f"drop owned by {owner}, {clerk}")
    finally:
        empty_db.rows(f"drop owned by {owner}, {clerk} cascade")
        for role in (owner, clerk):
            empty_db.rows(f"drop role {role}")


def test_pg_upgrade_from_17_to_18_keeps_everything(tmp_path: Path) -> None:
    ports = {17: free_port(), 18: free_port()}
    clusters = {major: tmp_path / f"data{major}" for major in ports}
    bins: dict[int, Path] = {}
    for major, data in clusters.items():
        install_files(CLIENTS[major])
        bins[major] = CLIENTS[major]
        wrapped = {p: unprivileged(CLIENTS[major] / p, tmp_path / f"bin{major}") for p in
                   ("initdb", "pg_ctl", "pg_upgrade")}  # fmt: skip
        options = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        if major == 18:
            options.append("--no-data-checksums")
        run([wrapped["initdb"], "-D", data, *options])
    (work := tmp_path / "work").mkdir()
    work.chmod(0o777)

    def server(major: int, action: str) -> None:
        wrapper = tmp_path / f"bin{major}" / "pg_ctl"
        pg_ctl = wrapper if wrapper.exists() else CLIENTS[major] / "pg_ctl"
        options = f"-p {ports[major]} -c unix_socket_directories='' -c listen_addresses=127.0.0.1"
        extra = ["-o", options] if action == "start" else ["-m", "fast"]
        log = ["-l", str(work / "log")] if action == "start" else []
        run([pg_ctl, "-D", clusters[major], "-w", *extra, *log, action])

    def database(major: int) -> Database:
        return Database(f"host=127.0.0.1 port={ports[major]} user=postgres", "postgres", major)

    server(17, "start")
    old = database(17)
    old.rows("create role alice login")
    old.rows("grant create on database postgres to alice")
    old.connect(role="alice").execute("create extension graphile_worker")
    install(old.connect(role="alice"), schema="Plain one", mode="plain")
    fill(old)
    before = content(old), members(old)
    old.close()
    server(17, "stop")
    upgrade = tmp_path / "bin18" / "pg_upgrade"
    run(
        [
            upgrade if upgrade.exists() else CLIENTS[18] / "pg_upgrade", "-U", "postgres",
            "-b", CLIENTS[17], "-B", CLIENTS[18], "-d", clusters[17], "-D", clusters[18],
            "-p", str(ports[17]), "-P", str(ports[18]), "-s", work,
        ],
        cwd=work,
        env={**os.environ, "HOME": str(work)},
    )  # fmt: skip
    server(18, "start")
    try:
        new = database(18)
        assert content(new) == before[0]
        for schema, drifts in (("graphile_worker", ["revision 21"]), ("Plain one", [])):
            assert [d.what for d in verify(new.connect(), schema=schema)] == drifts
        assert [row[:2] for row in members(new)] == [row[:2] for row in before[1]]
        worker = psycopg.connect(f"{new.dsn} user=alice", autocommit=True)
        assert worker.execute("select id from graphile_worker.add_job('a')").fetchone() == (
            4000000005,
        )
        worker.close()
        new.close()
    finally:
        server(18, "stop")
