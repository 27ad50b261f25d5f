"""Schemas that the real Node package made and filled become ours, and go back, row by row the same."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from graphile_worker.errors import ForeignSchemaError, InstallError, VersionError
from graphile_worker.install import adopt, install, release, verify
from support.node import url
from support.pg import NODE, SERVERS, Database, run, wait_for

from install.test_upgrade import checksum

GW = "graphile_worker"
REVISIONS = {"016": 18, "017": 19, "018": 20}


def make(db: Database, version: str, schema: str = GW, tasks: str = "") -> None:
    """Let Node make its schema and fill it: waiting, keyed, queued, future, failed, a crontab."""
    source = f"""
        const {{ makeWorkerUtils, runOnce }} = require('graphile-worker-{version}');
        const options = {{ connectionString: {json.dumps(url(db))}, schema: {json.dumps(schema)} }};
        (async () => {{
            const utils = await makeWorkerUtils(options);
            await utils.migrate();
            await utils.addJob('waits', {{ n: 1 }});
            await utils.addJob('keyed', [1], {{ jobKey: 'k', queueName: 'q', flags: ['f'] }});
            await utils.addJob('later', {{}}, {{ runAt: new Date('2099-01-01'), priority: -3 }});
            await utils.addJob('fails', {{}}, {{ maxAttempts: 1 }});
            await runOnce({{ ...options, taskList: {{ fails: async () => {{ throw new Error('no'); }} }} }});
            await utils.release();
        }})().catch((error) => {{ console.error(error); process.exit(1); }});
    """
    run([NODE, "-e", source], cwd=SERVERS.parent)
    ident = '"' + schema.replace('"', '""') + '"'
    db.connect().execute(
        f"insert into {ident}._private_known_crontabs values ('daily', now(), now())".encode()
    )


@contextmanager
def running(db: Database, version: str) -> Iterator[subprocess.Popen[str]]:
    """A Node worker in the middle of a job, whose row and queue are locked."""
    source = f"""
        const {{ run }} = require('graphile-worker-{version}');
        run({{ connectionString: {json.dumps(url(db))}, pollInterval: 100, concurrency: 2, taskList: {{
            hold: async (payload, helpers) => {{ await helpers.query('select pg_sleep($1)', [payload.seconds]); }},
            waits: async () => {{}}, keyed: async () => {{}},
        }} }}).then((runner) => runner.promise, (error) => {{ console.error(error); process.exit(1); }});
    """
    db.rows(
        f"select {GW}.add_job('hold', json_build_object('seconds', 1.5), 'held', priority := -10)"
    )
    process = subprocess.Popen(
        [str(NODE), "-e", source], cwd=SERVERS.parent, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.majors(13, 18)
@pytest.mark.parametrize("mode", ["extension", "plain"])
@pytest.mark.parametrize("version", REVISIONS)
def test_a_schema_of_node_becomes_ours_and_goes_back(
    empty_db: Database, version: str, mode: Any
) -> None:
    make(empty_db, version)
    conn = empty_db.connect()
    conn.execute(
        f"update {GW}._private_jobs set locked_at = now(), locked_by = 'pool' where key = 'k'"
    )
    conn.execute(f"update {GW}._private_job_queues set locked_at = now(), locked_by = 'pool'")
    before = checksum(empty_db)

    done = adopt(conn, mode=mode)
    assert done.changed
    assert f"revision {REVISIONS[version]}" in done.message
    assert checksum(empty_db) == before
    assert verify(conn) == []
    assert not adopt(conn, mode=mode).changed
    release(conn)
    adopt(conn, mode=mode)
    assert checksum(empty_db) == before
    assert verify(conn) == []

    # Ours works on it: the held queue is respected, and freed with its pool.
    taken = empty_db.column(f"select task_identifier from {GW}.get_jobs('w', 10)")
    assert taken == ["waits"]
    empty_db.rows(
        f"select {GW}.return_jobs('w', array(select id from {GW}.jobs where locked_by = 'w'))"
    )
    empty_db.rows(f"select {GW}.force_unlock_workers('{{pool}}')")
    # And so does Node, before and after the release.
    for road in ("adopted", "released"):
        if road == "released":
            release(conn)
            assert empty_db.rows("select from pg_extension where extname = 'graphile_worker'") == []
            empty_db.rows(f"select {GW}.add_job('waits')")
        empty_db.rows(f"select {GW}.add_job('keyed', '[2]', job_key := 'k')")
        with running(empty_db, "018"):
            wait_for(
                lambda: (
                    empty_db.column(f"select task_identifier from {GW}.jobs order by id")
                    == ["later", "fails"]
                )
            )
    assert verify(conn) == []


@pytest.mark.parametrize("version", ["017", "018"])
def test_adoption_under_a_running_node_worker(empty_db: Database, version: str) -> None:
    make(empty_db, version)
    conn = empty_db.connect()
    with running(empty_db, version) as worker:
        query = f"select id, locked_by from {GW}.jobs where task_identifier = 'hold'"
        wait_for(lambda: empty_db.rows(f"{query} and locked_at is not null"))
        held = empty_db.row(query)
        adopt(conn)
        assert empty_db.row(f"select id, locked_by from {GW}.jobs where id = {held[0]}") == held
        wait_for(lambda: empty_db.rows(f"select from {GW}.jobs where id = {held[0]}") == [])
        empty_db.rows(f"select {GW}.add_job('waits')")
        wait_for(
            lambda: (
                empty_db.column(f"select task_identifier from {GW}.jobs order by id")
                == ["later", "fails"]
            )
        )
        assert worker.poll() is None
    assert verify(conn) == []


def test_a_schema_of_any_name_is_adopted_as_plain(empty_db: Database) -> None:
    name = 'Node "queue" of ' + "é" * 10
    make(empty_db, "018", name)
    conn = empty_db.connect()
    before = checksum(empty_db, name)
    assert adopt(conn, schema=name).changed
    assert checksum(empty_db, name) == before
    assert verify(conn, schema=name) == []


def test_running_workers_of_an_older_breaking_revision_are_told(empty_db: Database) -> None:
    make(empty_db, "016")
    with running(empty_db, "016") as worker:
        wait_for(
            lambda: empty_db.column(f"select 1 from {GW}.jobs where locked_at is not null") == [1]
        )
        assert "0.16 stop" in adopt(empty_db.connect()).message
        output, _ = worker.communicate(timeout=30)
    assert "breaking" in output.lower()


def test_roles_that_could_enqueue_still_can(empty_db: Database) -> None:
    role = f"role_{empty_db.name[3:]}"
    make(empty_db, "018")
    empty_db.rows(f"create role {role} login")
    try:
        empty_db.rows(f"grant usage on schema {GW} to {role}")
        empty_db.rows(
            f"grant execute on function {GW}.add_job(text, json, text, timestamptz, int, text, int, text[], text) to {role}"
        )
        adopt(empty_db.connect())
        assert verify(empty_db.connect()) == []
        empty_db.connect(role=role).execute(f"select {GW}.add_job('waits')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            empty_db.connect(role=role).execute(f"select {GW}.get_jobs('w')")
    finally:
        empty_db.rows(f"drop owned by {role}")
        empty_db.rows(f"drop role {role}")


def test_roles_that_could_read_the_jobs_read_the_other_views_too(empty_db: Database) -> None:
    role = f"role_{empty_db.name[3:]}"
    make(empty_db, "018")
    empty_db.rows(f"create role {role} login")
    try:
        empty_db.rows(f"grant usage on schema {GW} to {role}")
        empty_db.rows(f"grant select on {GW}.jobs to {role}")
        adopt(empty_db.connect())
        assert verify(empty_db.connect()) == []
        reader = empty_db.connect(role=role)
        assert reader.execute(f"select identifier from {GW}.crontabs").fetchall() == [("daily",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(f"select {GW}.add_job('waits')")
    finally:
        empty_db.rows(f"drop owned by {role}")
        empty_db.rows(f"drop role {role}")


@pytest.mark.parametrize("mode", ["extension", "plain"])
def test_what_a_superuser_adopts_stays_its_owners(empty_db: Database, mode: Any) -> None:
    role = f"role_{empty_db.name[3:]}"
    make(empty_db, "018")
    empty_db.rows(f"create role {role} login")
    empty_db.rows(f"alter schema {GW} owner to {role}")
    for change in empty_db.column(
        f"select format('alter %s %s owner to {role}', type, identity) from pg_depend d cross join"
        " lateral pg_identify_object(d.classid, d.objid, 0) where refclassid = 'pg_namespace'::regclass"
        f" and refobjid = '{GW}'::regnamespace and type in ('table', 'view', 'function', 'type')"
    ):
        empty_db.rows(change.encode())
    adopt(empty_db.connect(), mode=mode)
    assert verify(empty_db.connect()) == []
    owners = empty_db.column(
        f"select distinct proowner::regrole::text from pg_proc where pronamespace = '{GW}'::regnamespace"
    )
    assert owners == [role]
    empty_db.connect(role=role).execute(f"select {GW}.get_jobs('w')")
    assert empty_db.value("select current_user") == "postgres"
    release(empty_db.connect()) if mode == "extension" else None
    empty_db.rows(f"drop owned by {role} cascade")
    empty_db.rows(f"drop role {role}")


@pytest.mark.parametrize(
    ("revision", "problem", "error"),
    [(17, "graphile-worker 0.16.6", VersionError), (21, "pip install -U", VersionError)],
)
def test_a_revision_too_old_or_too_new_is_refused(
    empty_db: Database, revision: int, problem: str, error: type[Exception]
) -> None:
    make(empty_db, "018")
    if revision < 20:
        empty_db.rows(f"delete from {GW}.migrations where id > {revision}")
    else:
        empty_db.rows(f"insert into {GW}.migrations (id) values ({revision})")
    before = checksum(empty_db)
    for act in (adopt, install):
        with pytest.raises(error, match=problem):
            act(empty_db.connect())
    assert checksum(empty_db) == before


def test_install_leaves_jobs_of_node_to_adopt(empty_db: Database) -> None:
    make(empty_db, "018")
    with pytest.raises(ForeignSchemaError, match="gw-install adopt"):
        install(empty_db.connect())


def test_tables_that_are_not_as_node_makes_them_are_refused(empty_db: Database) -> None:
    make(empty_db, "018")
    empty_db.rows(f"alter table {GW}._private_jobs add column extra int")
    before = checksum(empty_db)
    with pytest.raises(InstallError, match=r"column _private_jobs\.extra"):
        adopt(empty_db.connect())
    assert checksum(empty_db) == before
    assert empty_db.rows("select from pg_extension where extname = 'graphile_worker'") == []
    assert empty_db.value("select to_regproc('graphile_worker.get_jobs')") is None


@pytest.mark.majors(13, 18)
def test_twenty_installs_and_five_starts_of_node_make_one_schema(empty_db: Database) -> None:
    """Four rounds on each of six majors; who comes first changes from round to round."""
    program = str(Path(sys.executable).parent / "gw-install")
    source = f"""
        require('graphile-worker-018').makeWorkerUtils({{ connectionString: {json.dumps(url(empty_db))} }})
            .then(async (utils) => {{ await utils.migrate(); await utils.release(); }})
            .catch((error) => {{ console.error(error); process.exit(1); }});
    """
    pause = threading.Event()
    for delay in (None, 0.0, 0.2, 0.35):
        started: list[subprocess.Popen[str]] = []

        def start(command: list[str], started: list[subprocess.Popen[str]] = started) -> None:
            started.append(
                subprocess.Popen(
                    command, cwd=SERVERS.parent, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, text=True,
                )
            )  # fmt: skip

        def nodes(start: Any = start) -> None:
            for _ in range(5):
                start([str(NODE), "-e", source])

        if delay is None:
            nodes()
            pause.wait(0.3)
        for _ in range(20):
            start([program, "install", "--dsn", empty_db.dsn])
        if delay is not None:
            pause.wait(delay)
            nodes()
        ended = [(process.communicate(timeout=120)[0], process.returncode) for process in started]
        assert [output for output, code in ended if code] == []
        assert verify(empty_db.connect()) == []
        assert empty_db.column(f"select id from {GW}.migrations order by id") == list(range(1, 21))
        empty_db.close()
        run([program, "uninstall", "--dsn", empty_db.dsn])
