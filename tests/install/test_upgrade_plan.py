"""What an upgrade will do is told before, and what it cannot do is refused."""

from __future__ import annotations

import pytest
from graphile_worker import __version__
from graphile_worker.errors import InstallError, VersionError
from graphile_worker.install import (
    adopt,
    install,
    plan_upgrade,
    release,
    uninstall,
    upgrade,
    verify,
)
from graphile_worker.install.catalogue import reference
from graphile_worker.install.packaging.scripts import Scripts
from support.pg import Database

from install.conftest import NEXT


def test_the_plan_names_changes_locks_holders_and_dependants(
    empty_db: Database, offering: Scripts
) -> None:
    conn = empty_db.connect()
    install(conn, mode="extension")
    conn.execute("create view public.mine as select * from graphile_worker.jobs")
    conn.execute(
        "create function public.on_user() returns trigger language plpgsql as"
        " $$ begin perform graphile_worker.add_job('x'); return new; end $$"
    )
    other = empty_db.connect(autocommit=False)
    other.execute("select * from graphile_worker._private_known_crontabs")
    plan = plan_upgrade(conn, scripts=offering)
    assert plan.steps == [f"{__version__}--{NEXT}"]
    assert "add function count_jobs(at_most bigint)" in plan.changes
    assert "add column _private_known_crontabs.note" in plan.changes
    assert any(
        change.startswith("change function permanently_fail_jobs") for change in plan.changes
    )
    assert not any("add_job(" in change for change in plan.changes)
    assert plan.locks == ["access exclusive on _private_known_crontabs"]
    (pid,) = {h.pid for h in plan.holders if h.table == "_private_known_crontabs"}
    assert pid == other.info.backend_pid
    assert plan.dependants == ["view public.mine"]
    assert [m.split()[1] for m in plan.mentions] == ["public.on_user()"]
    assert conn.execute("select graphile_worker.version()").fetchone() == (__version__,)
    other.rollback()
    upgrade(conn, scripts=offering)  # what depends on ours does not stand in the way


def test_the_locks_taken_are_those_declared(empty_db: Database, offering: Scripts) -> None:
    conn = empty_db.connect(autocommit=False)
    install(conn, mode="plain")
    conn.commit()
    conn.execute(offering.plain(offering.read(f"{__version__}--{NEXT}")).encode())
    rows = conn.execute(
        "select relname, lower(regexp_replace(replace(mode, 'Lock', ''), '(.)([A-Z])', '\\1 \\2', 'g'))"
        " from pg_locks l join pg_class c on c.oid = l.relation where pid = pg_backend_pid()"
        " and relnamespace = 'graphile_worker'::regnamespace and relkind = 'r'"
        " and relname <> 'migrations' and mode in ('ShareLock', 'ShareRowExclusiveLock',"
        " 'ExclusiveLock', 'AccessExclusiveLock')"
    ).fetchall()
    assert set(rows) == {
        (lock.table, lock.mode) for lock in offering.locks(f"{__version__}--{NEXT}")
    }
    conn.rollback()


def test_a_newer_or_unknown_version_is_refused(empty_db: Database, offering: Scripts) -> None:
    conn = empty_db.connect()
    install(conn, mode="extension", scripts=offering)
    for act in (install, upgrade, verify, release, uninstall, adopt):
        with pytest.raises(VersionError, match="newer than"):
            act(conn)
    with pytest.raises(VersionError, match="cannot downgrade"):
        upgrade(conn, to=__version__, scripts=offering)
    with pytest.raises(VersionError, match="is not known"):
        upgrade(conn, to="3.0.0", scripts=offering)
    assert verify(conn, scripts=offering) == []


def test_the_server_has_to_offer_the_version(empty_db: Database, following: Scripts) -> None:
    conn = empty_db.connect()
    install(conn, mode="extension")
    with pytest.raises(InstallError, match="gw-install files put"):
        upgrade(conn, scripts=following)
    assert conn.execute("select graphile_worker.version()").fetchone() == (__version__,)


def test_the_reference_leaves_nothing_behind(db: Database, following: Scripts) -> None:
    conn = db.connect()
    reference(conn, NEXT, following)
    assert db.rows(
        "select relname from pg_class where relnamespace = pg_my_temp_schema()"
    ) == []  # fmt: skip
