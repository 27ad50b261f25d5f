"""gw doctor: each bad state is made by hand on a real server, named, and repaired where that is safe."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from graphile_worker.gw.doctor.command import CHECKS, Diagnosis, _as_text, examine
from graphile_worker.gw.doctor.findings import Examination, Finding, Limits
from graphile_worker.gw.queue import Queue
from support.bouncer import NEEDS_PGBOUNCER
from support.pg import Database, wait_for

from gw.program import gw, queue, said
from gw.test_explain import add, bury, take, worker

LOCKS = """
    select 'job', id::text, locked_by, locked_at from graphile_worker.jobs where locked_at is not null
    union all
    select 'queue', queue_name, locked_by, locked_at from graphile_worker.queues where locked_at is not null
    order by 1, 2
"""


def diagnosis(db: Database, *only: str, fix: bool = False, **limits: Any) -> Diagnosis:
    look = Examination(queue(db), Limits(**limits))
    return examine(look, fix=fix, only=only)


def findings(db: Database, *only: str, **limits: Any) -> list[Finding]:
    found = diagnosis(db, *only, **limits)
    assert found.skipped == {}
    return found.findings


def healthy(db: Database) -> None:
    """Let workers of both kinds hold jobs with and without a queue."""
    worker(db, "alive")
    for name in ("alive", "node-1"):
        add(db)
        add(db, queue=f"q {name}")
        take(db, name, 2)


def test_a_healthy_queue_has_no_findings(db: Database) -> None:
    healthy(db)
    before = db.rows(LOCKS)
    # The server of the tests does not care for its data.
    checks = [part for name in CHECKS if name != "settings" for part in ("--check", name)]
    assert gw(db, "doctor", "--fix", *checks) == "Nothing is wrong.\n"
    assert json.loads(gw(db, "doctor", "--json", *checks)) == {
        "findings": [],
        "fixed": [],
        "skipped": {},
    }
    assert db.rows(LOCKS) == before


def test_what_dead_workers_hold_is_found_and_freed_and_nothing_else(db: Database) -> None:
    healthy(db)
    before = db.rows(LOCKS)
    worker(db, "dead-1")
    job, queued = add(db), add(db, queue="q")
    take(db, "dead-1", 2)
    bury(db, "dead-1")
    # The other one beats on, however long this takes.
    db.rows(
        "update graphile_worker._private_heartbeats set heartbeat_at = now() + interval '1 hour'"
        " where worker_id = 'alive'"
    )
    text = gw(db, "doctor", "--check", "dead-locks", code=3)
    assert "worker dead-1 is dead and holds 2 jobs and 1 queue" in text
    assert "last heartbeat came 1 h ago" in text
    assert "--fix does so" in text
    assert len(db.rows(LOCKS)) == len(before) + 3
    text = gw(db, "doctor", "--check", "dead-locks", "--fix")
    assert text == "Fixed: freed 2 jobs and 1 queue of dead-1.\nNothing is wrong.\n"
    assert db.rows(LOCKS) == before
    assert db.column(
        "select attempts from graphile_worker.jobs where id in (%s, %s)", job, queued
    ) == [0, 0]


def test_locks_of_four_hours_without_heartbeats_are_found_and_freed(db: Database) -> None:
    healthy(db)
    before = db.rows(LOCKS)
    add(db, queue="q")
    take(db, "node-old")
    for table in ("jobs", "job_queues"):
        db.rows(
            f"update graphile_worker._private_{table} set locked_at = now() - interval '5 hours' where locked_by = 'node-old'"
        )
    (found,) = findings(db, "dead-locks")
    assert (found.severity, "node-old" in found.what, "5 h" in found.why) == ("problem", True, True)
    done = diagnosis(db, "dead-locks", fix=True)
    assert (done.findings, done.fixed) == ([], ["freed 1 job and 1 queue locked for four hours"])
    assert db.rows(LOCKS) == before


def test_stuck_queues_are_found_and_unlocked_and_others_are_not(db: Database) -> None:
    healthy(db)
    before = db.rows(LOCKS)
    for name in ("a", "b"):
        add(db, queue=name)
    db.rows(
        "update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'x' where queue_name in ('a', 'b')"
    )
    found = findings(db, "stuck-queues")
    assert [one.what.partition(",")[0] for one in found] == [
        "queue a is locked",
        "queue b is locked",
    ]
    assert "waiting in it: 1 job" in found[0].why
    done = diagnosis(db, "stuck-queues", fix=True)
    assert (done.findings, done.fixed) == ([], ["unlocked queue a", "unlocked queue b"])
    assert db.rows(LOCKS) == before


def test_a_pile_of_failed_jobs_is_found_by_number_and_by_share(db: Database) -> None:
    db.rows("select count(graphile_worker.add_job('bad')) from generate_series(1, 12)")
    db.rows("select count(graphile_worker.add_job('good')) from generate_series(1, 88)")
    db.rows(
        "select graphile_worker.permanently_fail_jobs(array(select id from graphile_worker.jobs where task_identifier = 'bad'))"
    )
    assert findings(db, "failed-jobs") == []  # few
    (found,) = findings(db, "failed-jobs", failed_least=12)
    assert found.what == "12 jobs permanently failed, 12% of all"
    assert "bad (12)" in found.why
    assert len(findings(db, "failed-jobs", failed_jobs=11)) == 1
    assert findings(db, "failed-jobs", failed_least=12, failed_share=0.12) == []
    assert diagnosis(db, "failed-jobs", fix=True, failed_jobs=1).fixed == []
    assert db.value("select count(*) from graphile_worker.jobs") == 100


def test_jobs_of_tasks_that_nobody_knows_are_found(db: Database) -> None:
    add(db, "lost", after="-2 minutes")
    add(db, "fresh")
    (found,) = findings(db, "tasks")
    assert found.what.startswith("1 due job, the oldest for 2 min")
    worker(db, tasks=["t"])
    (found,) = findings(db, "tasks")
    assert "1 job of the task lost, due for 2 min" in found.what
    worker(db, "w2", tasks=["lost"])
    assert findings(db, "tasks") == []


def test_work_of_node_s_workers_is_not_taken_for_nobody_s(db: Database) -> None:
    for _ in range(2):
        add(db, "t", after="-2 minutes")
    take(db, "node-1")
    assert findings(db, "tasks") == []


def test_too_many_names_of_queues_are_found(db: Database) -> None:
    for name in "abc":
        add(db, queue=name)
    assert findings(db, "queue-names") == []
    (found,) = findings(db, "queue-names", queue_names=2)
    assert "3 names" in found.what
    assert "gw cleanup queues" in found.fix


def test_missing_and_invalid_indexes_are_found(db: Database) -> None:
    db.rows("drop index graphile_worker.jobs_order_idx")
    db.rows(
        "update pg_index set indisvalid = false where indexrelid = 'graphile_worker.jobs_task_queue_idx'::regclass"
    )
    found = {one.what: one for one in findings(db, "drift")}
    assert found["index jobs_order_idx: is missing"].check == "indexes"
    assert any(what.startswith("index jobs_task_queue_idx: valid differs") for what in found)
    assert all(one.fix == "`gw-install verify --fix`" for one in found.values())
    assert "PROBLEM indexes: index jobs_order_idx" in gw(db, "doctor", code=3)


def test_rights_that_no_level_gives_are_found(db: Database) -> None:
    role = f"role_{db.name[3:]}"
    db.rows(f"create role {role}")
    try:
        db.rows("grant execute on function graphile_worker.complete_jobs(bigint[]) to public")
        db.rows(f"grant select on graphile_worker._private_jobs to {role}")
        found = findings(db, "drift")
        assert {one.check for one in found} == {"roles"}
        assert any("public" in one.what for one in found)
        assert any(role in one.what for one in found)
    finally:
        db.rows(f"drop owned by {role}")
        db.rows(f"drop role {role}")


def test_dead_rows_and_tables_without_autovacuum_are_found(db: Database) -> None:
    db.rows("alter table graphile_worker._private_jobs set (autovacuum_enabled = off)")
    db.rows("select count(graphile_worker.add_job('t')) from generate_series(1, 2000)")
    db.rows("delete from graphile_worker._private_jobs where id > 10")
    stats = "select n_dead_tup from pg_stat_user_tables where relname = '_private_jobs'"
    db.close()  # a session that ends tells what it did
    wait_for(lambda: db.value(stats) >= 1990)
    found = findings(db, "vacuum", dead_rows=1000)
    assert [one.what for one in found] == [
        "autovacuum is off for the table graphile_worker._private_jobs",
        "the table graphile_worker._private_jobs has 1990 dead rows beside 10 live ones",
    ]
    db.rows("vacuum graphile_worker._private_jobs")
    db.rows(
        "insert into graphile_worker._private_jobs (task_id) select 1"
    )  # so that it keeps its pages
    db.close()
    wait_for(lambda: "bloat" in {one.check for one in findings(db, "vacuum", size=8192 * 2)})
    db.rows("alter table graphile_worker._private_jobs reset (autovacuum_enabled)")
    db.rows("vacuum full graphile_worker._private_jobs")
    wait_for(lambda: findings(db, "vacuum", size=8192 * 16) == [])


def test_settings_that_lose_jobs_or_let_them_wait_are_found(db: Database) -> None:
    """Of a server as it is, and of a database in which its settings are turned round."""

    def set_in_database(**values: str) -> dict[str, str]:
        for name, value in values.items():
            db.rows(f"alter database {db.name} set {name} = '{value}'")
        db.close()
        return {one.what: one.severity for one in findings(db, "settings")}

    found = set_in_database(synchronous_commit="off", idle_in_transaction_session_timeout="0")
    assert found.pop("synchronous_commit is off") == "warning"
    limits = [what for what in found if "timeout" in what]
    assert [found.pop(what) for what in limits] == ["advice"]
    assert "idle_in_transaction_session_timeout" in limits[0]
    assert "not set" in limits[0]
    of_server = {
        f"{name} is off"
        for name in ("fsync", "full_page_writes", "track_counts")
        if db.value(f"show {name}") == "off"
    }
    assert of_server, "the server of the tests does not care for its data"
    assert found == dict.fromkeys(of_server, "problem")
    found = set_in_database(synchronous_commit="on", idle_in_transaction_session_timeout="1min")
    assert found == dict.fromkeys(of_server, "problem")
    text = gw(db, "doctor", "--check", "settings", code=3)
    assert "PROBLEM settings: fsync is off" in text
    assert "Nothing is wrong" not in text


def test_advice_alone_is_no_alarm() -> None:
    advice = Finding("settings", "advice", "what", "why", "fix")
    assert not Diagnosis([advice], [], {}).is_alarming
    assert _as_text(Diagnosis([advice], [], {})).splitlines()[::3] == [
        "ADVICE settings: what",
        "Nothing is wrong.",
    ]
    assert Diagnosis([advice, replace(advice, severity="warning")], [], {}).is_alarming


@contextmanager
def held_open(db: Database) -> Iterator[psycopg.Connection[object]]:
    conn = db.connect(autocommit=False)
    conn.execute("set transaction isolation level repeatable read")
    conn.execute("select 'holding on'")
    yield conn
    conn.rollback()


def test_who_keeps_dead_rows_from_being_removed_is_found(db: Database) -> None:
    assert findings(db, "old-transactions") == []
    with held_open(db) as conn:
        wait_for(lambda: findings(db, "old-transactions", transaction=0.05))
        found = findings(db, "old-transactions", transaction=0.05)
        mine = [one for one in found if f"pid {conn.info.backend_pid} " in one.what]
        assert "idle in transaction" in mine[0].what
        assert "holding on" in mine[0].what
        assert f"pg_terminate_backend({conn.info.backend_pid})" in mine[0].fix
    gid = f"it's {db.name}"
    other = db.connect(autocommit=False)
    other.execute("select pg_current_xact_id()" if db.major > 13 else "select txid_current()")
    other.execute("prepare transaction '{}'".format(gid.replace("'", "''")))
    try:
        wait_for(lambda: findings(db, "old-transactions", transaction=0.05))
        (found_it,) = [
            one for one in findings(db, "old-transactions", transaction=0.05) if gid in one.what
        ]
        assert "rollback prepared 'it''s" in found_it.fix
    finally:
        other.autocommit = True
        other.execute("rollback prepared '{}'".format(gid.replace("'", "''")))


def test_counters_that_come_to_their_end_are_found(db: Database) -> None:
    add(db, queue="q")
    assert findings(db, "sequences") == []
    db.rows("select setval('graphile_worker.job_queues_id_seq', 1200000000)")
    (found,) = findings(db, "sequences")
    assert found.what == "the counter job_queues_id_seq has used 56% of its numbers"
    assert "gw cleanup queues" in found.fix


def test_a_full_queue_of_notifications_is_found(db: Database) -> None:
    assert findings(db, "notifications") == []
    listener = db.connect(autocommit=False)
    listener.execute("listen slow")
    listener.commit()
    listener.execute("select 1")  # in a transaction it does not read
    db.rows(
        "select pg_notify('slow', n::text || repeat('x', 7000)) from generate_series(1, 50) as n"
    )
    (found,) = findings(db, "notifications", notify_share=0.0)
    assert "% full" in found.what
    listener.rollback()


def test_clocks_that_differ_are_found(db: Database) -> None:
    for ahead, word in ((90.0, "1 min 30 s ahead of"), (-90.0, "1 min 30 s behind")):
        look = Examination(queue(db), clock=lambda ahead=ahead: time.time() + ahead)  # type: ignore[misc]
        (found,) = examine(look, only=["clock"]).findings
        assert word in found.what
    assert findings(db, "clock") == []


@NEEDS_PGBOUNCER
def test_a_pooler_in_transaction_mode_is_found(db: Database, bouncer: str) -> None:
    with psycopg.connect(bouncer, autocommit=True, prepare_threshold=None) as conn:
        found = examine(Examination(Queue(conn)), only=["pooler"])
        assert (found.skipped, [one.check for one in found.findings]) == ({}, ["pooler"])
        assert "--listen-dsn" in found.findings[0].fix
    said(db, "doctor", "--check", "pooler", code=0)
    env = {"GW_DSN": bouncer}
    assert "WARNING pooler" in gw(db, "doctor", "--check", "pooler", env=env, code=3)
    for command in (["stats"], ["jobs"], ["add", "t"], ["retry", "1"], ["top", "--once"]):
        gw(db, *command, env=env)


@NEEDS_PGBOUNCER
def test_a_pooler_in_session_mode_is_not_a_finding(db: Database, session_bouncer: str) -> None:
    with psycopg.connect(session_bouncer, autocommit=True, prepare_threshold=None) as conn:
        assert examine(Examination(Queue(conn)), only=["pooler"]) == Diagnosis([], [], {})


def test_a_check_that_cannot_be_made_is_told_and_the_others_are_made(db: Database) -> None:
    blocker = db.connect(autocommit=False)
    blocker.execute("lock table graphile_worker._private_job_queues, graphile_worker.migrations")
    only = ["failed-jobs", "queue-names", "drift", "clock"]
    found = examine(Examination(queue(db, timeout=0.2)), only=only)
    blocker.rollback()
    assert set(found.skipped) == {"failed-jobs", "queue-names", "drift"}
    assert "--timeout" in found.skipped["queue-names"]
    assert found.findings == []


def test_each_check_is_in_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "gw.md").read_text()
    assert [name for name in CHECKS if f"`{name}`" not in guide] == []
