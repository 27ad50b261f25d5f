"""Fresh, upgraded and restored are the same by every road, and nobody notices."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from graphile_worker import __version__
from graphile_worker.errors import BusyError, VersionError
from graphile_worker.install import (
    LockRetries,
    adopt,
    install,
    release,
    switch,
    uninstall,
    upgrade,
    verify,
)
from graphile_worker.install.catalogue import members, read
from graphile_worker.install.packaging.scripts import Scripts
from support.pg import CLIENTS, Database, Server, run, wait_for

from install.conftest import NEXT

ODD = 'Odd "Na\'me" $$ %s \\'


GW = "graphile_worker"


def everything(conn: psycopg.Connection[Any], schema: str) -> object:
    """Every object but who owns it, and the rights on it."""
    found = read(conn, schema)
    conn.rollback()
    objects = {
        key: {name: value for name, value in attributes.items() if name not in ("owner", "body")}
        for key, attributes in found.objects.items()
    }
    return objects, found.rights


def checksum(db: Database, schema: str = GW) -> list[Any]:
    ident = '"' + schema.replace('"', '""') + '"'
    columns = "(select md5(string_agg({}::text, ',' order by {}::text)) from {}.{} t)"
    rows = [
        ("t", "_private_jobs"),
        ("t", "_private_tasks"),
        ("t", "_private_job_queues"),
        ("(identifier, known_since, last_execution)", "_private_known_crontabs"),
    ]
    parts = [columns.format(what, what, ident, table) for what, table in rows]
    parts += [
        f"(select (last_value, is_called)::text from {ident}.{sequence})"
        for sequence in ("jobs_id_seq1", "tasks_id_seq", "job_queues_id_seq")
    ]
    return list(db.row(("select " + ", ".join(parts)).encode()))


def fill(db: Database, schema: str) -> None:
    q = '"' + schema.replace('"', '""') + '"'
    connection = db.connect()
    for call in (
        f"select {q}.add_job('a', '{{\"n\": 1}}', 'q', job_key := 'k', flags := '{{f}}')",
        f"select {q}.add_job('b', '[1]', run_at := '2099-01-01')",
        f"select {q}.add_job('c')",
        f"select {q}.get_jobs('worker', 1, '{{a}}')",
        f"insert into {q}._private_known_crontabs values ('daily', now(), now())",
    ):
        connection.execute(call.encode())


@pytest.mark.parametrize(("mode", "schema"), [("extension", GW), ("plain", GW), ("plain", ODD)])
def test_upgraded_is_fresh_by_every_road(
    server: Server, empty_db: Database, offering: Scripts, mode: Any, schema: str
) -> None:
    role = f"role_{empty_db.name[3:]}"
    empty_db.rows(f"create role {role}")
    conn = empty_db.connect()
    install(conn, mode=mode, schema=schema)
    fill(empty_db, schema)
    ident = '"' + schema.replace('"', '""') + '"'
    conn.execute(f"select {ident.replace('%', '%%')}.grant_access(%s, 'work')".encode(), [role])
    before = checksum(empty_db, schema)

    listener = empty_db.connect()
    listener.execute('listen "worker:migrate"')
    done = upgrade(conn, schema=schema, scripts=offering)
    assert done.changed
    assert NEXT in done.message
    assert not upgrade(conn, schema=schema, scripts=offering).changed
    told = [n.payload for n in listener.notifies(timeout=5, stop_after=1)]
    assert told == ['{"migrationNumber" : 20, "breaking" : false}']

    assert checksum(empty_db, schema) == before
    assert verify(conn, schema=schema, scripts=offering) == []
    notes = conn.execute(f"select note from {ident}._private_known_crontabs".encode()).fetchall()
    assert [note.startswith("known since") for (note,) in notes] == [True]
    assert conn.execute(
        "select has_function_privilege(%s, p.oid, 'execute') from pg_proc p where proname ="
        " 'count_jobs' and pronamespace = (select oid from pg_namespace where nspname = %s)",
        [role, schema],
    ).fetchall() == [(True,)]
    with server.database() as fresh:
        other = fresh.connect()
        install(other, mode=mode, schema=schema, scripts=offering)
        other.execute(
            f"select {ident.replace('%', '%%')}.grant_access(%s, 'work')".encode(), [role]
        )
        assert everything(other, schema) == everything(conn, schema)
        assert set(members(other)) == set(members(conn))
    assert uninstall(conn, schema=schema, with_jobs=True, scripts=offering).changed
    assert empty_db.rows("select from pg_namespace where nspname = %s", schema) == []
    empty_db.rows(f"drop role {role}")


def test_a_restored_upgrade_is_healthy_and_holds_every_row(
    server: Server, empty_db: Database, offering: Scripts, tmp_path: Path
) -> None:
    conn = empty_db.connect()
    install(conn, mode="extension")
    fill(empty_db, GW)
    upgrade(conn, scripts=offering)
    file = tmp_path / "dump"
    client = CLIENTS[18 if server.major == 18 else 17]
    run([client / "pg_dump", "-d", empty_db.dsn, "-Fc", "-f", file])
    with server.database() as restored:
        run([client / "pg_restore", "-d", restored.dsn, file], check=False)
        assert checksum(restored) == checksum(empty_db)
        assert restored.rows(f"select * from {GW}._private_known_crontabs") == empty_db.rows(
            f"select * from {GW}._private_known_crontabs"
        )
        assert verify(restored.connect(), scripts=offering) == []
        assert everything(restored.connect(autocommit=False), GW) == everything(
            empty_db.connect(autocommit=False), GW
        )


def test_released_switched_and_adopted_schemas_upgrade_later(
    empty_db: Database, offering: Scripts
) -> None:
    conn = empty_db.connect()
    install(conn, mode="extension")
    fill(empty_db, GW)
    before = checksum(empty_db)
    release(conn)
    with pytest.raises(VersionError, match="gw-install upgrade"):
        switch(conn, "extension", scripts=offering)
    upgrade(conn, scripts=offering)
    switch(conn, "extension", scripts=offering)
    release(conn, scripts=offering)
    adopt(conn, scripts=offering)
    assert not adopt(conn, scripts=offering).changed
    assert checksum(empty_db) == before
    assert verify(conn, scripts=offering) == []


def test_a_long_transaction_makes_an_upgrade_step_back_and_not_block_the_world(
    empty_db: Database, offering: Scripts
) -> None:
    conn = empty_db.connect()
    install(conn, mode="extension")
    reader = empty_db.connect(autocommit=False)
    reader.execute("select * from graphile_worker._private_known_crontabs")
    done, late = threading.Event(), []

    def others() -> None:
        """Everybody else, who would wait behind an upgrade that waits for the long transaction."""
        with psycopg.connect(empty_db.dsn, autocommit=True) as mine:
            mine.execute("set statement_timeout = '1500ms'")
            while not done.is_set():
                try:
                    mine.execute("select 1 from graphile_worker._private_known_crontabs")
                except psycopg.errors.QueryCanceled as error:
                    late.append(error)

    world = threading.Thread(target=others)
    world.start()
    try:
        with pytest.raises(BusyError, match=f"pid {reader.info.backend_pid}"):
            upgrade(conn, scripts=offering, lock_retries=LockRetries(3, 0.2))
    finally:
        done.set()
        world.join()
    assert late == []
    assert conn.execute("select graphile_worker.version()").fetchone() == (__version__,)
    assert verify(conn) == []

    free = threading.Timer(1.0, reader.rollback)
    free.start()
    upgrade(conn, scripts=offering, lock_retries=LockRetries(30, 0.2))
    free.join()
    assert verify(conn, scripts=offering) == []


def test_drain_waits_until_no_job_runs(empty_db: Database, offering: Scripts) -> None:
    conn = empty_db.connect()
    install(conn, mode="extension")
    conn.execute("select graphile_worker.add_job('a')")
    conn.execute("select graphile_worker.get_jobs('worker')")
    with pytest.raises(BusyError, match="jobs are running"):
        upgrade(conn, drain=True, scripts=offering, lock_retries=LockRetries(0.5))
    assert conn.execute("select graphile_worker.version()").fetchone() == (__version__,)
    worker = empty_db.connect()
    finish = threading.Timer(
        0.5, worker.execute, ["select graphile_worker.finish_jobs('worker', '{1}')"]
    )
    finish.start()
    assert upgrade(conn, drain=True, scripts=offering).changed
    finish.join()


def installed(conn: psycopg.Connection[Any], version: str, mode: Any) -> None:
    """Install a version as it was released."""
    scripts = Scripts()
    if version == __version__:
        install(conn, mode=mode)
    elif mode == "extension":
        conn.execute(f"create extension graphile_worker version '{version}'".encode())
    else:
        conn.execute("create schema graphile_worker")
        conn.execute(scripts.plain(scripts.read(version)).encode())


@pytest.mark.parametrize("mode", ["extension", "plain"])
@pytest.mark.parametrize("version", Scripts().versions())
def test_workers_and_producers_under_load_see_no_error(
    empty_db: Database, offering: Scripts, mode: Any, version: str
) -> None:
    conn = empty_db.connect()
    installed(conn, version, mode)
    stop, added_all, trouble = threading.Event(), threading.Event(), []
    added, ran = [], []

    def producer(number: int) -> None:
        try:
            with psycopg.connect(empty_db.dsn, autocommit=True) as mine:
                n = 0
                while not stop.is_set():
                    n += 1
                    key = f"k{number}" if n % 3 == 0 else None
                    row = mine.execute(
                        f"select id from {GW}.add_job('t', job_key := %s::text)", [key]
                    ).fetchone()
                    assert row
                    added.append(row[0])
        except Exception as error:
            trouble.append(error)

    def worker(name: str) -> None:
        try:
            with psycopg.connect(empty_db.dsn, autocommit=True) as mine:
                while True:
                    ending = added_all.is_set()
                    ids = [
                        row[0]
                        for row in mine.execute(f"select id from {GW}.get_jobs(%s, 10)", [name])
                    ]
                    mine.execute(f"select * from {GW}.finish_jobs(%s, %s)", [name, ids])
                    ran.extend(ids)
                    if ending and not ids:
                        return
        except Exception as error:
            trouble.append(error)

    producers = [threading.Thread(target=producer, args=[n]) for n in range(3)]
    workers = [threading.Thread(target=worker, args=[f"w{n}"]) for n in range(2)]
    for thread in producers + workers:
        thread.start()
    try:
        wait_for(lambda: len(ran) > 50)
        to = offering if version == __version__ else Scripts()
        run(
            [
                Path(sys.executable).parent / "gw-install", "upgrade", "--dsn", empty_db.dsn,
                "--scripts", to.folder,
            ]
        )  # fmt: skip
        seen = len(ran)
        wait_for(lambda: trouble or len(ran) > seen + 50)
        assert trouble == []
    finally:
        stop.set()
        for thread in producers:
            thread.join()
        added_all.set()
        for thread in workers:
            thread.join()
    assert trouble == []
    assert set(ran) == set(added)
    assert len(ran) == len(set(ran))
    assert verify(conn, scripts=to) == []


@pytest.mark.parametrize("mode", ["extension", "plain"])
@pytest.mark.parametrize("released", Scripts().versions()[:-1])
def test_a_released_version_becomes_this_one_and_keeps_every_row(
    empty_db: Database, released: str, mode: str
) -> None:
    conn = empty_db.connect()
    installed(conn, released, mode)
    conn.execute("select graphile_worker.add_job('t', queue_name := 'q', job_key := 'k')")
    conn.execute("select graphile_worker.heartbeat('w')")
    conn.execute("select graphile_worker.get_jobs('w')")
    conn.execute("select graphile_worker.register_crontabs('{daily}')")
    before = checksum(empty_db)
    assert upgrade(conn).message.startswith("Upgraded")
    assert conn.execute("select graphile_worker.version()").fetchone() == (__version__,)
    assert verify(conn) == []
    assert checksum(empty_db) == before
    conn.execute("select graphile_worker.finish_jobs('w', array[1])")
    assert empty_db.rows("select from graphile_worker.jobs") == []
