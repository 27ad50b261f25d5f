"""Each change on the caller's own connection, however that is set up, and in any schema's name."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from graphile_worker import __version__
from graphile_worker.errors import BusyError, InstallError, InUseError
from graphile_worker.install import (
    LockRetries,
    adopt,
    catalogue,
    detect,
    grant,
    install,
    repair,
    uninstall,
    upgrade,
    verify,
)
from graphile_worker.install.packaging.scripts import Scripts
from psycopg.pq import TransactionStatus
from support.pg import Database, wait_for

from install.life import life
from install.test_upgrade import GW

pytestmark = pytest.mark.majors(13, 18)


@pytest.fixture(autouse=True)
def nothing_is_known() -> None:
    """What a version should be is found out by the connection of each test."""
    catalogue._references.clear()


@pytest.mark.parametrize("mode", ["extension", "plain"])
def test_only_the_caller_commits_a_transaction(empty_db: Database, mode: Any) -> None:
    conn = empty_db.connect(autocommit=False)
    conn.execute("set lock_timeout = '7s'")
    conn.execute("set statement_timeout = '9s'")
    conn.commit()
    assert verify_fails(conn)
    conn.rollback()
    for _ in range(2):  # in a transaction that begins here, as in one that began before
        assert install(conn, mode=mode).changed
        assert verify(conn) == []
        assert conn.info.transaction_status == TransactionStatus.INTRANS
        assert conn.execute("show lock_timeout").fetchone() == ("7s",)
        assert conn.execute("show statement_timeout").fetchone() == ("9s",)
        conn.rollback()
        assert empty_db.rows("select from pg_namespace where nspname = %s", GW) == []
        conn.execute("select 1")
    life(conn, mode=mode)
    conn.rollback()
    install(conn, mode=mode)
    conn.commit()
    assert verify(conn) == []


def verify_fails(conn: psycopg.Connection[Any]) -> bool:
    with pytest.raises(InstallError, match="gw-install install"):
        verify(conn)
    return True


def test_a_connection_of_another_driver_is_told() -> None:
    with pytest.raises(TypeError, match="offline_sql"):
        install(object())  # type: ignore[arg-type]


def test_time_limits_of_a_role_do_not_end_a_change_that_waits(empty_db: Database) -> None:
    other = empty_db.connect(autocommit=False)
    install(other)
    waiting = empty_db.connect()
    waiting.execute("set statement_timeout = '300ms'")
    waiting.execute("set idle_in_transaction_session_timeout = '300ms'")
    outcomes: list[Any] = []
    thread = threading.Thread(target=lambda: outcomes.append(install(waiting)))
    thread.start()
    late = threading.Timer(1.0, other.commit)
    late.start()
    thread.join()
    late.join()
    assert [outcome.changed for outcome in outcomes] == [False]


def test_a_session_that_may_only_read_is_told_what_to_do(empty_db: Database) -> None:
    install(empty_db.connect())
    read_only = "-c default_transaction_read_only=on"
    with psycopg.connect(empty_db.dsn, autocommit=True, options=read_only) as conn:
        for act in (verify, lambda conn: install(conn, schema="other")):
            with pytest.raises(InstallError, match="connect to the primary"):
                act(conn)


def test_a_connection_that_is_lost_midway_is_told(empty_db: Database) -> None:
    other = empty_db.connect(autocommit=False)
    install(other)
    dying = empty_db.connect()
    errors: list[InstallError] = []

    def act() -> None:
        try:
            install(dying)
        except InstallError as error:
            errors.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    killer = empty_db.connect()
    waiting = "select from pg_locks where pid = %s and locktype = 'advisory' and not granted"
    wait_for(lambda: killer.execute(waiting, [dying.info.backend_pid]).fetchall())
    killer.execute("select pg_terminate_backend(%s)", [dying.info.backend_pid])
    thread.join()
    assert ["run this again" in str(error) for error in errors] == [True]
    other.rollback()


@pytest.mark.parametrize("mode", ["extension", "plain"])
def test_uninstall_sees_a_job_that_is_not_committed_yet(empty_db: Database, mode: Any) -> None:
    conn = empty_db.connect()
    install(conn, mode=mode)
    producer = empty_db.connect(autocommit=False)
    producer.execute("select graphile_worker.add_job('x')")
    refusals: list[BaseException] = []

    def act() -> None:
        try:
            uninstall(conn)
        except InUseError as error:
            refusals.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    wait_for(lambda: blocked(empty_db, conn))
    producer.commit()
    thread.join()
    assert len(refusals) == 1
    assert empty_db.value("select count(*) from graphile_worker.jobs") == 1


def blocked(db: Database, conn: psycopg.Connection[Any]) -> bool:
    query = "select from pg_locks where pid = %s and relation is not null and not granted"
    return bool(db.connect().execute(query, [conn.info.backend_pid]).fetchall())


def test_drain_sees_a_job_that_is_being_taken(empty_db: Database, offering: Scripts) -> None:
    conn = empty_db.connect()
    install(conn, mode="extension")
    conn.execute("select graphile_worker.add_job('x')")
    worker = empty_db.connect(autocommit=False)
    worker.execute("select graphile_worker.get_jobs('w')")
    busy: list[BusyError] = []

    def act() -> None:
        try:
            upgrade(conn, drain=True, scripts=offering, lock_retries=LockRetries(6, 5))
        except BusyError as error:
            busy.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    wait_for(lambda: blocked(empty_db, conn))
    worker.commit()
    thread.join()
    assert ["jobs are running" in str(error) for error in busy] == [True]
    assert conn.execute("select graphile_worker.version()").fetchone() == (__version__,)


def test_a_repair_does_not_stand_in_the_way_for_long(empty_db: Database) -> None:
    conn = empty_db.connect()
    install(conn)
    conn.execute("alter table graphile_worker._private_jobs disable row level security")
    drifts = verify(conn)
    reader = empty_db.connect(autocommit=False)
    reader.execute("select from graphile_worker._private_jobs")
    with pytest.raises(BusyError, match=f"pid {reader.info.backend_pid}"):
        repair(conn, drifts, lock_retries=LockRetries(1, 0.1))
    assert verify(conn) == drifts
    reader.rollback()
    assert repair(conn, drifts) == []


def test_grants_are_exact_and_looking_into_the_schema_is_one_of_them(empty_db: Database) -> None:
    conn = empty_db.connect()
    install(conn)
    odd = f'Ro\'le "q" %s {empty_db.name[-8:]}'
    quoted = '"' + odd.replace('"', '""') + '"'
    conn.execute(f"create role {quoted}; drop role if exists owner; create role owner".encode())
    try:
        for role in (odd, "owner"):
            for level in ("enqueue", "work", "observe", "admin", None):
                planned = grant(conn, role, level, dry_run=True)
                acl = "select nspacl from pg_namespace where nspname = 'graphile_worker'"
                with conn.transaction(force_rollback=True):
                    for statement in planned.sql:
                        conn.execute(statement.encode())
                    printed = rights(empty_db, conn), conn.execute(acl).fetchall()
                    assert verify(conn) == []
                assert grant(conn, role, level).sql == planned.sql
                assert (rights(empty_db, conn), conn.execute(acl).fetchall()) == printed
                assert not grant(conn, role, level).changed
        assert not grant(conn, "postgres", "work").changed  # the owner
        grant(conn, odd, "work")
        conn.execute(f"revoke usage on schema graphile_worker from {quoted}".encode())
        (drift,) = verify(conn)
        assert "lacks USAGE on the schema" in drift.problem
        assert repair(conn, [drift]) == []
        conn.execute(
            f"grant execute on function graphile_worker.version() to {quoted} with grant option;"
            f" grant update (priority) on graphile_worker._private_jobs to {quoted}".encode()
        )
        (drift,) = verify(conn)
        assert "EXECUTE WITH GRANT OPTION on function version()" in drift.problem
        for statement in grant(conn, odd, "work", dry_run=True).sql:
            conn.execute(statement.encode())
        assert verify(conn) == []
    finally:
        conn.execute(f"drop owned by owner, {quoted}; drop role owner, {quoted}".encode())


def rights(db: Database, conn: psycopg.Connection[Any]) -> list[Any]:
    return conn.execute(
        "select proname, proacl::text from pg_proc where pronamespace = 'graphile_worker'::regnamespace"
        " union all select relname, relacl::text from pg_class where relnamespace ="
        " 'graphile_worker'::regnamespace union all select typname, typacl::text from pg_type"
        " where typnamespace = 'graphile_worker'::regnamespace order by 1, 2"
    ).fetchall()


def test_adopt_in_the_callers_transaction_is_his_to_commit(empty_db: Database) -> None:
    conn = empty_db.connect(autocommit=False)
    install(conn, mode="plain")
    conn.commit()
    assert adopt(conn).changed
    conn.rollback()
    assert detect(conn).mode == "plain"


@pytest.mark.parametrize("mode", ["extension", "plain"])
def test_uninstall_names_who_depends_on_the_queue_also_beside_it(
    empty_db: Database, mode: Any
) -> None:
    for made, named in (
        ("view graphile_worker.mine as select * from graphile_worker.jobs", "view graphile_worker.mine"),
        ("table graphile_worker.child () inherits (graphile_worker._private_jobs)", "table graphile_worker.child"),
        ("table public.u (specs graphile_worker.job_spec[])", "table public.u"),
        ("materialized view public.m as select * from graphile_worker.jobs", "materialized view public.m"),
        ("table public.t (id int references graphile_worker._private_tasks)", "constraint t_id_fkey on table public.t"),
        (
            "function public.f(graphile_worker.job_spec) returns int language sql as 'select 1'",
            "function public.f(graphile_worker.job_spec)",
        ),
    ):  # fmt: skip
        conn = empty_db.connect()
        install(conn, mode=mode)
        conn.execute(f"create {made}".encode())
        with pytest.raises(InUseError) as refusal:
            uninstall(conn)
        assert f" {named}. Drop" in str(refusal.value)
        assert verify(conn) == []
        assert uninstall(conn, cascade=True).changed
        assert detect(conn).mode == "none"
        conn.execute("drop table if exists public.u, public.t, graphile_worker.child")
        conn.execute("drop schema if exists graphile_worker")
