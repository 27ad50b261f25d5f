"""The real Node worker on a database that only ever saw CREATE EXTENSION."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from support.node import VERSIONS, NodeWorker, node_script, url
from support.pg import NODE, SERVERS, Database, run, wait_for

pytestmark = pytest.mark.majors(13, 18)

OBJECTS = """
    select pg_describe_object(classid, objid, objsubid) from pg_depend
    where refobjid = (select oid from pg_namespace where nspname = 'graphile_worker')
    order by 1
"""


def left(db: Database) -> int:
    count: int = db.value("select count(*) from graphile_worker._private_jobs")
    return count


versions = pytest.mark.parametrize("version", VERSIONS)


@versions
def test_node_starts_without_running_ddl_and_runs_our_jobs(db: Database, version: str) -> None:
    before = db.column(OBJECTS), db.rows("select id, breaking from graphile_worker.migrations")
    add = "select graphile_worker.add_job({})"
    db.rows(add.format("'note', '{\"n\": 1}'"))
    db.rows(add.format("'note', '{\"n\": 2}', run_at := now() + '1 second'"))
    db.rows(add.format("'note', '[1]', job_key := 'k'"))
    db.rows(add.format("'note', '[2]', job_key := 'k'"))
    for n in range(5):
        db.rows(add.format(f"'note', '{{\"n\": {10 + n}}}', 'q'"))
    db.rows(add.format('\'batch\', \'[{"i": 1}, {"bad": 7}, {"i": 3}]\''))
    db.rows(add.format("'fail', max_attempts := 1"))
    with NodeWorker(db, version, pause=0.05) as worker:
        wait_for(lambda: left(db) == 2, "all but the two failures are done")
        wait_for(
            lambda: None not in db.column("select last_error from graphile_worker.jobs"),
            "both failed",
        )
        assert worker.process.poll() is None
    assert (
        db.column(OBJECTS),
        db.rows("select id, breaking from graphile_worker.migrations"),
    ) == before
    ran = [json.loads(p) for p in db.column("select payload::text from ran where task = 'note'")]
    assert [1, 2] in ran
    assert sorted(p["n"] for p in ran if p != [1, 2]) == [1, 2, 10, 11, 12, 13, 14]
    assert db.value(
        "select count(*) from ran a join ran b on a.queue_name = b.queue_name and a.job_id < b.job_id"
        " where a.ended > b.started"
    ) == 0, "one at a time in the queue"  # fmt: skip
    batch, failed = db.rows(
        "select payload::text, attempts, last_error from graphile_worker._private_jobs order by id"
    )
    assert json.loads(batch[0]) == [{"bad": 7}]
    assert "bad 7" in batch[2]
    assert failed[1] == 1
    assert "node says no" in failed[2]


@versions
def test_the_functions_that_node_calls_work(db: Database, version: str) -> None:
    answer = node_script(
        db,
        version,
        """
        const a = await utils.addJob('a', { x: 1 }, { queueName: 'q', jobKey: 'k', priority: 3,
            maxAttempts: 4, flags: ['f'], runAt: new Date('2099-01-01') });
        const b = await utils.addJob('b', {}, { jobKey: 'k', jobKeyMode: 'unsafe_dedupe' });
        const many = utils.addJobs ? await utils.addJobs([
            { identifier: 'm1', payload: { i: 1 } },
            { identifier: 'm2', payload: { i: 2 }, queueName: 'q2', jobKey: 'kk', flags: ['z'] },
        ]) : [];
        const moved = await utils.rescheduleJobs([a.id], { priority: 7, attempts: 1 });
        const failed = await utils.permanentlyFailJobs([a.id], 'enough');
        const removed = await utils.withPgClient(async (client) =>
            (await client.query("select * from graphile_worker.remove_job('k')")).rows[0]);
        const c = await utils.addJob('c', null);
        const done = await utils.completeJobs([c.id]);
        return { a, b, many, moved, failed, removed, done };
        """,
    )
    assert answer["a"]["id"] == answer["b"]["id"] == answer["removed"]["id"]
    assert (answer["b"]["revision"], answer["b"]["priority"]) == (1, 3)
    assert [job["payload"] for job in answer["many"]] == [{"i": 1}, {"i": 2}]
    assert (answer["moved"][0]["priority"], answer["moved"][0]["attempts"]) == (7, 1)
    assert answer["failed"][0]["last_error"] == "enough"
    assert len(answer["done"]) == 1
    assert sorted(db.column("select task_identifier from graphile_worker.jobs")) == ["m1", "m2"]


@versions
def test_nodes_cron_fires(db: Database, version: str) -> None:
    """A minute may pass until the tick; a backfill shows the same statement at once."""
    first = NodeWorker(db, version, crontab="* * * * * tick ?id=every&fill=10m {a:1}")
    with first:
        wait_for(
            lambda: db.value("select count(*) from graphile_worker._private_known_crontabs") == 1,
            "the crontab is registered",
        )
    db.rows(
        "update graphile_worker._private_known_crontabs set known_since = now() - interval '1 hour',"
        " last_execution = date_trunc('minute', now()) - interval '3 minutes'"
    )
    with NodeWorker(db, version, crontab="* * * * * tick ?id=every&fill=10m {a:1}"):
        # The first worker may have run a tick of its own when a minute began.
        backfilled = "from ran where payload #>> '{_cron,backfilled}' = 'true'"
        wait_for(lambda: db.value(f"select count(*) {backfilled}") >= 2, "the backfill runs")
    assert set(db.column(f"select payload ->> 'a' {backfilled}")) == {"1"}


@pytest.mark.majors(13, 18)
def test_nodes_local_queue_works(db: Database) -> None:
    """Version 0.18 with its batching: fetch many, finish many."""
    for n in range(300):
        queue = f"'q{n % 3}'" if n % 2 else "null"
        db.rows(f"select graphile_worker.add_job('note', '{{\"n\": {n}}}', {queue})")
    preset = {
        "worker": {"localQueue": {"size": 20}, "completeJobBatchDelay": 5, "failJobBatchDelay": 5}
    }
    with NodeWorker(db, "018", preset=preset):
        wait_for(lambda: left(db) == 0, "the backlog is drained")
    assert db.row("select count(*), count(distinct job_id) from ran") == (300, 300)


@versions
def test_python_and_node_drain_one_backlog_together(db: Database, version: str) -> None:
    jobs = 400
    for n in range(jobs):
        queue = f"'q{n % 5}'" if n % 4 else "null"
        db.rows(f"select graphile_worker.add_job('note', '{{\"n\": {n}}}', {queue})")
    with NodeWorker(db, version):
        mine = db.connect()
        wait_for(lambda: db.rows("select from ran limit 1") != [], "Node has begun")
        deadline = time.monotonic() + 60
        while left(db) and time.monotonic() < deadline:
            taken = mine.execute(
                "select id, queue_name from graphile_worker.get_jobs('python', 3, '{note}')"
            ).fetchall()
            for job, queue in taken:
                mine.execute(
                    "insert into ran (job_id, task, queue_name, by) values (%s, 'note', %s, 'python')",
                    (job, queue),
                )
                mine.execute("update ran set ended = clock_timestamp() where job_id = %s", (job,))
                done = mine.execute(
                    "select done from graphile_worker.finish_jobs('python', %s)", ([job],)
                ).fetchone()
                assert done == (True,)
    assert left(db) == 0
    assert db.row("select count(*), count(distinct job_id) from ran") == (jobs, jobs)
    assert set(db.column("select distinct by from ran")) == {"node", "python"}
    assert db.value(
        "select count(*) from ran a join ran b on a.queue_name = b.queue_name and a.job_id <> b.job_id"
        " where a.started < b.started and a.ended > b.started"
    ) == 0  # fmt: skip


def shape(db: Database) -> dict[str, Any]:
    """What the contract fixes of a schema: columns, types, functions' signatures, revisions."""
    return {
        "columns": db.rows(
            "select table_name, column_name, ordinal_position, udt_name, is_nullable,"
            " is_identity, is_generated from information_schema.columns"
            " where table_schema = 'graphile_worker' and table_name in ('_private_jobs',"
            " '_private_job_queues', '_private_tasks', '_private_known_crontabs', 'migrations', 'jobs')"
            " order by table_name, ordinal_position"
        ),
        "functions": db.rows(
            "select p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),"
            " p.proisstrict from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
            " where n.nspname = 'graphile_worker' and p.proname in ('add_job', 'add_jobs', 'remove_job',"
            " 'complete_jobs', 'permanently_fail_jobs', 'reschedule_jobs', 'force_unlock_workers')"
            " order by 1"
        ),
        "spec": db.rows(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute"
            " where attrelid = 'graphile_worker.job_spec'::regclass order by attnum"
        ),
        "rls": db.rows(
            "select relname, relrowsecurity from pg_class where relkind = 'r'"
            " and relnamespace = 'graphile_worker'::regnamespace"
            " and relname not in ('_private_heartbeats', '_private_ended_workers',"
            " '_private_crashes', '_private_settings', '_private_pauses', '_private_limits',"
            " '_private_limit_states', '_private_cancellations', '_private_schedules',"
            " '_private_histories', '_private_history_partitions', '_private_attempts',"
            " '_private_progress', '_private_result_waits', '_private_dead_letters',"
            " '_private_payload_schemas', '_private_unreported_claims')"
            " order by 1"
        ),
        "migrations": db.rows("select id, breaking from graphile_worker.migrations order by id"),
    }


def test_the_contract_is_that_of_a_schema_made_by_node(db: Database, empty_db: Database) -> None:
    source = f"""
        require('graphile-worker-018').makeWorkerUtils({{ connectionString: '{url(empty_db)}' }})
            .then(async (utils) => {{ await utils.migrate(); await utils.release(); }})
    """
    run([NODE, "-e", source], cwd=SERVERS.parent)
    ours, theirs = shape(db), shape(empty_db)
    for part in ours:
        assert ours[part] == theirs[part], part
