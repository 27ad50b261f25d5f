"""Who may do what: nothing for everybody, and one level of access for each kind of role."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from support.pg import Database

CALLS = {
    "enqueue": [
        "select graphile_worker.add_job('t')",
        "select graphile_worker.add_jobs(array[row('t',null,null,null,null,'k',null,null)::graphile_worker.job_spec])",
        "select graphile_worker.add_jobs_with_modes(array[row('t',null,null,null,null,null,null,null)::graphile_worker.job_spec], '{replace}')",
        "select graphile_worker.version()",
    ],
    "work": [
        "select graphile_worker.get_jobs('w')",
        "select graphile_worker.finish_jobs('w', '{1}')",
        "select graphile_worker.fail_jobs('w', '[]')",
        "select graphile_worker.return_jobs('w', '{1}')",
        "select graphile_worker.release_stale_locks()",
        "select graphile_worker.heartbeat('w')",
        "select graphile_worker.writing_transactions()",
        "select graphile_worker.recover_dead_workers('w')",
        "select graphile_worker.return_unknown_jobs('w', '{}')",
        "select graphile_worker.end_worker('w')",
        "select graphile_worker.register_crontabs('{daily}')",
        """select graphile_worker.add_cron_jobs(now(), '[{"identifier": "daily", "task": "t"}]')""",
    ],
    "admin": [
        "select graphile_worker.remove_job('k')",
        "select graphile_worker.complete_jobs('{1}')",
        "select graphile_worker.permanently_fail_jobs('{1}')",
        "select graphile_worker.reschedule_jobs('{1}')",
        "select graphile_worker.force_unlock_workers('{w}')",
        "select graphile_worker.set_recovery()",
        "select graphile_worker.unlock_queues()",
    ],
    "observe": [
        "select * from graphile_worker.jobs",
        "select * from graphile_worker.workers",
        "select * from graphile_worker.queues",
        "select * from graphile_worker.crontabs",
    ],
    "nobody": [
        "select * from graphile_worker._private_jobs",
        "insert into graphile_worker._private_tasks (identifier) values ('x')",
        "delete from graphile_worker._private_job_queues",
        "select * from graphile_worker.migrations",
        "select * from graphile_worker._private_heartbeats",
        "select graphile_worker._return_held_jobs('w', null)",
        "select nextval('graphile_worker.jobs_id_seq1')",
        "select graphile_worker._ensure_names('{x}', '{y}')",
        "select graphile_worker._add_keyed_jobs('{}', '{}')",
        "select graphile_worker.grant_access('postgres', 'admin')",
        "select graphile_worker.revoke_access('postgres')",
    ],
}
LEVELS = {
    None: set(),
    "enqueue": {"enqueue"},
    "work": {"enqueue", "work"},
    "admin": {"enqueue", "work", "admin", "observe"},
    "observe": {"observe"},
}


@pytest.fixture
def role(db: Database) -> Iterator[str]:
    name = f"role_{uuid.uuid4().hex}"
    db.rows(f"create role {name} login")
    yield name
    db.rows(f"drop owned by {name}")
    db.rows(f"drop role {name}")


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_allows_its_calls_and_no_other(db: Database, role: str, level: str | None) -> None:
    db.rows("select graphile_worker.add_job('t')")
    if level:
        db.rows("select graphile_worker.grant_access(%s, %s)", role, level)
    connection = db.connect(role=role)
    for kind, calls in CALLS.items():
        for call in calls:
            if kind in LEVELS[level]:
                connection.execute(call)
            else:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(call)


def test_the_view_shows_the_rows_to_whoever_may_read_it(db: Database, role: str) -> None:
    db.rows("select graphile_worker.add_job('t')")
    db.rows("select graphile_worker.grant_access(%s, 'observe')", role)
    rows = (
        db.connect(role=role).execute("select task_identifier from graphile_worker.jobs").fetchall()
    )
    assert rows == [("t",)]


def test_a_new_level_replaces_the_old_and_revoking_leaves_nothing(db: Database, role: str) -> None:
    db.rows("select graphile_worker.grant_access(%s, 'admin')", role)
    db.rows("select graphile_worker.grant_access(%s, 'enqueue')", role)
    connection = db.connect(role=role)
    connection.execute(CALLS["enqueue"][0])
    for call in (CALLS["work"][0], CALLS["observe"][0]):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(call)
    db.rows("select graphile_worker.revoke_access(%s)", role)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(CALLS["enqueue"][0])


def test_an_unknown_level_or_role_is_refused(db: Database, role: str) -> None:
    for arguments, code in (
        ((role, "root"), "GWBAL"),
        ((role, None), "GWBAL"),
        (("no such", "work"), "GWBRO"),
    ):
        with pytest.raises(psycopg.Error) as caught:
            db.rows("select graphile_worker.grant_access(%s, %s)", *arguments)
        assert caught.value.sqlstate == code


def test_nothing_is_granted_to_everybody(db: Database) -> None:
    assert db.rows(
        "select p.proname from pg_proc p cross join lateral"
        " aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a"
        " where p.pronamespace = 'graphile_worker'::regnamespace and a.grantee = 0"
        " union all select t.typname from pg_type t join pg_class c on c.oid = t.typrelid and c.relkind = 'c'"
        " cross join lateral aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) a"
        " where t.typnamespace = 'graphile_worker'::regnamespace and a.grantee = 0"
        " union all select c.relname from pg_class c cross join lateral"
        " aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a"
        " where c.relnamespace = 'graphile_worker'::regnamespace and c.relkind in ('r', 'v')"
        " and a.grantee = 0"
    ) == []  # fmt: skip


def test_every_definer_function_pins_its_search_path(db: Database) -> None:
    assert db.rows(
        "select proname from pg_proc where pronamespace = 'graphile_worker'::regnamespace"
        " and prosecdef and not 'search_path=pg_catalog, pg_temp' = any (proconfig)"
    ) == []  # fmt: skip
    public = db.column(
        "select proname::text from pg_proc where pronamespace = 'graphile_worker'::regnamespace"
        " and not prosecdef and proname not like '\\_%' order by 1"
    )  # fmt: skip
    assert public == ["grant_access", "next_runs", "revoke_access", "version"]


def test_hostile_objects_of_the_caller_are_not_picked_up(db: Database, role: str) -> None:
    db.rows("select graphile_worker.grant_access(%s, 'work')", role)
    connection = db.connect(role=role)
    connection.execute("create temp table _private_tasks (id int, identifier text)")
    connection.execute("create temp table tasks (id int, identifier text)")
    connection.execute(
        "create function pg_temp.length(text) returns int language sql as 'select 1 / 0'"
    )
    connection.execute("set search_path = pg_temp, pg_catalog")
    connection.execute("select graphile_worker.add_job('t', queue_name := 'q', job_key := 'k')")
    assert len(connection.execute("select graphile_worker.get_jobs('w')").fetchall()) == 1


def test_a_role_with_create_on_the_database_installs_and_owns_everything(
    empty_db: Database,
) -> None:
    name = f"owner_{uuid.uuid4().hex}"
    empty_db.rows(f"create role {name} login")
    try:
        empty_db.rows(f"grant create on database {empty_db.name} to {name}")
        connection = empty_db.connect(role=name)
        connection.execute("create extension graphile_worker")
        connection.execute("select graphile_worker.add_job('t')")
        assert len(connection.execute("select graphile_worker.get_jobs('w')").fetchall()) == 1
        connection.execute(f"select graphile_worker.grant_access('{name}', 'work')")
        connection.execute("drop extension graphile_worker")
    finally:
        empty_db.rows(f"drop owned by {name}")
        empty_db.rows(f"drop role {name}")
