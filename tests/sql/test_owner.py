"""Who made a schema owns what is in it, and gains nothing else by that."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from graphile_worker import JobSpec, WorkerUtils, add_job, add_jobs
from graphile_worker.errors import InstallError, UntrustedOwner
from graphile_worker.gw import cli as gw
from graphile_worker.install import detect, grant, install, verify
from graphile_worker.install.cli import main as gw_install
from graphile_worker.install.inspect import counts
from support.pg import Database

G = "graphile_worker"


@pytest.fixture
def evil(empty_db: Database) -> Iterator[str]:
    """A role that may create things in the database."""
    role = f"evil_{uuid.uuid4().hex[:8]}"
    empty_db.rows(f"create role {role} login")
    empty_db.rows(f"grant create on database {empty_db.name} to {role}")
    try:
        yield role
    finally:
        empty_db.rows(f"drop owned by {role} cascade")
        empty_db.rows(f"drop role {role}")


def is_superuser(db: Database, role: str) -> bool:
    found: bool = db.value("select rolsuper from pg_roles where rolname = %s", role)
    return found


def test_an_extension_is_not_made_in_the_schema_of_somebody_else(
    empty_db: Database, evil: str
) -> None:
    empty_db.connect(role=evil).execute(f"create schema {G}")
    with pytest.raises(psycopg.Error, match="is not yours alone") as caught:
        empty_db.rows(f"create extension {G}")
    assert caught.value.sqlstate == "GWBIN"
    with pytest.raises(InstallError, match="is not yours alone"):
        install(empty_db.connect(), mode="plain")
    assert empty_db.rows("select from pg_class where relnamespace = %s::regnamespace", G) == []
    # Nor in one that holds a function of theirs.
    empty_db.connect(role=evil).execute(
        f"create function {G}.add_job(text) returns int language sql as 'select 1'"
    )
    empty_db.rows(f"alter schema {G} owner to postgres")
    with pytest.raises(psycopg.Error, match="add_job"):
        empty_db.rows(f"create extension {G}")
    empty_db.rows(f"drop schema {G} cascade")
    empty_db.rows(f"create extension {G}")
    # Theirs is theirs.
    empty_db.rows(f"drop extension {G}; drop schema {G}")
    empty_db.connect(role=evil).execute(f"create schema {G}; create extension {G}")
    assert empty_db.value(
        "select count(*) from pg_class where relnamespace = %s::regnamespace and relowner <> %s::regrole",
        G, evil,
    ) == 0  # fmt: skip


def test_an_extension_over_nodes_schema_says_what_to_run(empty_db: Database) -> None:
    empty_db.rows(f"create schema {G}; create table {G}.migrations (id int)")
    with pytest.raises(psycopg.Error, match="holds the tables of Node's") as caught:
        empty_db.rows(f"create extension {G}")
    assert "gw-install adopt" in str(caught.value.diag.message_hint)


def trap(db: Database, evil: str) -> None:
    """Let the owner put code into whatever may be called or read."""
    owner = db.connect(role=evil)
    owner.execute(f"""
        create function public_trap() returns boolean language plpgsql as $$
        begin
          begin
            execute 'alter role {evil} superuser';
          exception when others then null;
          end;
          return true;
        end $$;
        create or replace function {G}.version() returns text language sql as $$
          select {G}.public_trap(); select '1.0.0'::text
        $$;
        create or replace view {G}.workers as
          select worker_id, started_at, heartbeat_at, {G}.public_trap() as is_alive,
            task_identifiers, details, is_busy
          from {G}._private_heartbeats
    """.replace("public_trap", f"{G}.public_trap", 1))  # fmt: skip
    owner.execute(f"""
        create or replace function {G}.grant_access(grantee name, access_level text) returns void
        language sql as $$ select {G}.public_trap() $$;
        create or replace view {G}.jobs as
          select j.id, null::text as queue_name, null::text as task_identifier, j.priority, j.run_at,
            j.attempts, j.max_attempts, j.last_error, j.created_at, j.updated_at, j.key,
            j.locked_at, j.locked_by, j.revision, j.flags
          from {G}._private_jobs as j where {G}.public_trap();
    """)


COMMANDS = [
    ["doctor"], ["stats"], ["jobs"], ["job", "1"], ["explain", "1"], ["queues"], ["top", "--once"],
    ["retry", "1"], ["cleanup", "queues"], ["unlock", "--dead"], ["add", "t"],
    ["run", "nothing", "--once"],
]  # fmt: skip


def test_a_superuser_runs_nothing_of_a_queue_that_another_role_owns(
    empty_db: Database, evil: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    empty_db.connect(role=evil).execute(f"create schema {G}; create extension {G}")
    trap(empty_db, evil)
    monkeypatch.setenv("GW_DSN", empty_db.dsn)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nothing.py").write_text("async def t(payload): ...\ntasks = {'t': t}\n")
    for command in COMMANDS:
        assert gw.main(command) == 1, command
        assert f"--trust-owner {evil}" in capsys.readouterr().err, command
        assert not is_superuser(empty_db, evil), command
    superuser = empty_db.connect()
    with pytest.raises(UntrustedOwner):
        grant(superuser, "pg_monitor", "observe")
    # What only reads the catalogue may go on; it runs nothing of the schema.
    assert any(drift.what == "function version()" for drift in verify(superuser))
    assert counts(superuser, detect(superuser)).total == 0
    assert gw_install(["status"]) == 0
    assert gw_install(["verify"]) == 3
    assert gw_install(["grant", "pg_monitor", "observe"]) == 1
    assert not is_superuser(empty_db, evil)
    # A table that became a view is not read, either.
    empty_db.rows(f"alter extension {G} drop table {G}.migrations")
    empty_db.connect(role=evil).execute(
        f"alter table {G}.migrations rename to old;"
        f" create view {G}.migrations as select 1 as id, {G}.public_trap() as breaking"
    )
    assert gw_install(["status"]) == 1
    assert "is not a table" in capsys.readouterr().err
    assert not is_superuser(empty_db, evil)
    empty_db.rows(f"select {G}.version()")
    assert is_superuser(empty_db, evil), "the trap is one"


def test_an_owner_who_is_trusted_by_name_is_trusted(
    empty_db: Database, evil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty_db.connect(role=evil).execute(f"create schema {G}; create extension {G}")
    monkeypatch.setenv("GW_DSN", empty_db.dsn)
    assert gw.main(["stats", "--json"]) == 1
    assert gw.main(["stats", "--json", "--trust-owner", evil]) == 0
    # The owner of the database is, and so is everybody to roles that are no superusers.
    empty_db.rows(f"alter database {empty_db.name} owner to {evil}")
    assert gw.main(["stats", "--json"]) == 0
    empty_db.rows(f"alter database {empty_db.name} owner to postgres")
    assert gw.main(["stats", "--json", "--dsn", f"{empty_db.dsn} user={evil}"]) == 0


def test_level_enqueue_reads_nothing_that_others_wrote(db: Database) -> None:
    role = f"adder_{uuid.uuid4().hex[:8]}"
    db.rows(f"create role {role} login")
    try:
        db.rows(f"select {G}.grant_access(%s, 'enqueue')", role)
        secret = '["secret"]'
        one = f"select id from {G}.add_job('other', %s, 'hidden', job_key => 'k', flags => '{{f}}')"
        db.rows(one, secret)
        low = db.connect(role=role)
        for mode in ("unsafe_dedupe", "replace", "preserve_run_at"):
            row = low.execute(
                f"select payload, last_error from {G}.add_job('t', '[1]', job_key => 'k',"
                " job_key_mode => %s)",
                [mode],
            ).fetchone()
            assert row == (None, None), mode
            rows = low.execute(
                f"select payload from {G}.add_jobs_with_modes(array[row('t', '[1]', null, null, null,"
                f" 'k', null, null)::{G}.job_spec], array[%s])",
                [mode],
            ).fetchall()
            assert rows == [(None,)], mode
            job = add_job("t", [1], conn=low, job_key="k", job_key_mode=mode)
            assert (job.payload, job.task_identifier) == (None, "t")
            (job,) = add_jobs([JobSpec("t", [1], job_key="k", job_key_mode=mode)], conn=low)
            assert (job.payload, job.task_identifier, job.queue_name) == (None, "t", None)
        # What one passes comes back, and what is new.
        assert add_job("t", {"a": 1}, conn=low, job_key="k").payload == {"a": 1}
        assert add_job("t", {"a": 2}, conn=low, job_key="new").payload == {"a": 2}
        names = low.execute(
            f"select n.* from generate_series(1, 9) as id, {G}.job_names(id, id) as n"
        )
        assert set(names.fetchall()) == {(None, None)}
        # SET ROLE counts, and so does the level observe; Node's owner reads all.
        as_low = db.connect()
        as_low.execute(f"set role {role}")
        db.rows(one, secret)
        (job,) = as_low.execute(
            f"select payload from {G}.add_job('t', '[1]', job_key => 'k')"
        ).fetchall()
        assert job == (None,)
        assert db.value(f"select payload from {G}.add_job('t', '[2]', job_key => 'k')") is not None
        db.rows(f"select {G}.grant_access(%s, 'admin')", role)
        db.rows(f"select {G}.remove_job('k')")
        db.rows(one, secret)
        assert add_job("t", [3], conn=low, job_key="k").payload == ["secret", 3]
        assert WorkerUtils(low).get_job("k") is not None
    finally:
        db.rows(f"drop owned by {role}")
        db.rows(f"drop role {role}")


def test_default_privileges_are_no_drift_and_give_nothing(empty_db: Database, evil: str) -> None:
    for what in ("tables", "sequences", "functions", "types"):
        empty_db.rows(f"alter default privileges grant all on {what} to {evil}")
    empty_db.rows(f"alter default privileges grant all on tables to {evil} with grant option")
    empty_db.rows(f"create extension {G}")
    assert verify(empty_db.connect()) == []
    install(empty_db.connect(), schema="plain one", mode="plain")
    assert verify(empty_db.connect(), schema="plain one") == []


def test_a_remedy_names_the_role_that_acts(empty_db: Database, evil: str) -> None:
    empty_db.rows(f"revoke create on database {empty_db.name} from {evil}")
    acting = empty_db.connect()
    acting.execute(f"set role {evil}")
    with pytest.raises(InstallError, match=f"to {evil}; nothing was changed"):
        install(acting, mode="plain")


def test_flags_of_several_dimensions_have_an_error_of_ours(db: Database) -> None:
    with pytest.raises(psycopg.Error, match="Flags have 2 dimensions") as caught:
        db.rows(f"select {G}.add_job('t', flags => array[['a', 'b'], ['c', 'd']])")
    assert caught.value.sqlstate == "GWBFL"


def test_a_transaction_that_notifies_nobody_can_be_prepared(db: Database) -> None:
    db.rows("begin")
    db.rows("set local graphile_worker.notify = off")
    db.rows(f"select {G}.add_job('t')")
    db.rows("prepare transaction 'p'")
    db.rows("commit prepared 'p'")
    assert db.value(f"select count(*) from {G}.jobs") == 1
