"""gw import, from the real packages: every waiting job is moved once, or nothing is."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from client.connection.libraries import engine_url
from graphile_worker.gw.cli import main
from sqlalchemy.pool import NullPool
from support.command_line import run_main
from support.pg import NODE, SERVERS, Database, run

pytestmark = pytest.mark.majors(18)

HERE = Path(__file__).parent / "moving"
JOBS = """
    select jobs.task_identifier, private.payload, jobs.queue_name, jobs.key, jobs.priority, jobs.max_attempts,
      jobs.flags, jobs.run_at > now()
    from graphile_worker.jobs join graphile_worker._private_jobs as private on private.id = jobs.id
    order by jobs.id
"""
Fill = Callable[[Database, int], None]


def fill_procrastinate(db: Database, more: int = 0) -> None:
    running = (
        run([sys.executable, HERE / "procrastinate_app.py", db.dsn, str(more)])
        .strip()
        .splitlines()[-1]
    )
    db.rows("update public.procrastinate_jobs set status = 'doing' where id = %s", running)


def fill_pg_boss(db: Database, more: int = 0) -> None:
    info = db.connect().info
    dsn = f"postgres://{info.user}@{info.host}:{info.port}/{info.dbname}"
    # Imports look for packages beside the file.
    script = SERVERS / f"{db.name}.mjs"
    script.write_text((HERE / "pg_boss.mjs").read_text())
    try:
        run([NODE, script, dsn, str(more)])
    finally:
        script.unlink()


def fill_river(db: Database, more: int = 0) -> None:
    """With the tables that River's own client for Python has in its source package."""
    from riverqueue import Client, InsertOpts
    from riverqueue.driver.riversqlalchemy import Driver

    db.rows(river_tables())
    with sa.create_engine(engine_url(db, "psycopg"), poolclass=NullPool).begin() as conn:
        client = Client(Driver(conn))
        for n in range(3 + more):
            client.insert(_Args("send_email", {"n": n}), InsertOpts(priority=2, max_attempts=7))
        client.insert(_Args("resize", {"n": 1}), InsertOpts(queue="images"))
    db.rows("update public.river_job set attempt = 3, state = 'retryable' where args ->> 'n' = '1'")
    db.rows("update public.river_job set state = 'running' where args ->> 'n' = '2'")


class _Args:
    def __init__(self, kind: str, args: dict[str, Any]) -> None:
        self.kind, self._args = kind, args

    def to_json(self) -> str:
        return json.dumps(self._args)


def river_tables() -> str:
    (source,) = (Path(sys.prefix) / "river").glob("riverqueue-*.tar.gz")
    with tarfile.open(source) as package:
        (name,) = (name for name in package.getnames() if name.endswith("dbsqlc/river_job.sql"))
        member = package.extractfile(name)
        assert member is not None
        return member.read().decode().partition("-- name:")[0]


FILLS: dict[str, tuple[Fill, str]] = {
    "procrastinate": (fill_procrastinate, "select count(*) from procrastinate_jobs where status = 'todo'"),
    "pg-boss": (fill_pg_boss, "select count(*) from pgboss.job where state in ('created', 'retry')"),
    "river": (fill_river, "select count(*) from river_job where state not in ('running')"),
}  # fmt: skip


def imported(db: Database, *args: str, code: int = 0) -> Any:
    out, err = run_main(main, ["import", *args, "--dsn", db.dsn, "--json"], code=code, env={})
    return json.loads(out) if code == 0 else err


def test_procrastinates_jobs_keep_what_they_mean(db: Database) -> None:
    fill_procrastinate(db)
    found = imported(db, "procrastinate", "--yes", "--name", "resize=images.resize")
    assert found == {"jobs": {"resize": 2, "send_email": 2}, "schedules": [], "left": {"doing": 1}}
    assert db.rows(JOBS) == [
        ("send_email", {"to": "ann"}, None, "welcome ann", -5, 25, None, False),
        ("send_email", {"to": "bob"}, None, None, 0, 25, None, True),
        ("images.resize", {"n": 1}, "disk", None, 0, 25, {"queue:images": True}, False),
        ("images.resize", {"n": 2}, "disk", None, 0, 25, {"queue:images": True}, False),
    ]
    again = imported(db, "procrastinate", "--yes")
    assert again == {"jobs": {}, "schedules": [], "left": {"doing": 1}}


def test_pg_boss_jobs_and_schedules_keep_what_they_mean(db: Database) -> None:
    fill_pg_boss(db)
    found = imported(db, "pg-boss", "--yes")
    assert found["jobs"] == {"email": 2, "report": 2, "sync": 1}
    assert (found["schedules"], found["left"]) == (["report"], {"active": 1})
    assert db.rows(JOBS) == [
        ("email", {"to": "ann"}, None, None, -5, 4, None, False),
        ("email", {"n": 2, "to": "bob"}, None, None, 0, 4, None, True),
        ("report", {"n": 1}, "report:a", None, 0, 3, None, False),
        ("report", {"n": 2}, "report:a", None, 0, 3, None, False),
        ("sync", {}, None, "sync:tenant 1", 0, 3, None, False),
    ]
    assert db.rows("select name, task, cron, tz, payload from graphile_worker.schedules") == [
        ("report", "report", "0 3 * * *", "Europe/London", {"kind": "nightly"})
    ]
    assert db.value("select count(*) from pgboss.schedule") == 0


def test_rivers_jobs_keep_what_they_mean(db: Database) -> None:
    fill_river(db)
    found = imported(db, "river", "--yes")
    assert found == {
        "jobs": {"send_email": 2, "resize": 1},
        "schedules": [],
        "left": {"running": 1},
    }
    assert db.rows(JOBS) == [
        ("send_email", {"n": 0}, None, None, 2, 7, None, False),
        ("send_email", {"n": 1}, None, None, 2, 4, None, False),
        ("resize", {"n": 1}, None, None, 1, 22, {"queue:images": True}, False),
    ]


@pytest.mark.parametrize("system", FILLS)
def test_a_dry_run_tells_the_same_and_moves_nothing(db: Database, system: str) -> None:
    fill, waiting = FILLS[system]
    fill(db, 0)
    before = db.value(waiting)
    told = imported(db, system, "--dry-run")
    assert sum(told["jobs"].values()) == before == db.value(waiting)
    assert db.value("select count(*) from graphile_worker.jobs") == 0
    assert imported(db, system, "--yes") == told
    assert db.value(waiting) == 0


@pytest.mark.parametrize("system", FILLS)
def test_jobs_that_are_taken_or_added_meanwhile_are_moved_once_or_left(
    db: Database, system: str
) -> None:
    """Old workers take jobs while the import runs: each job ends in exactly one of the two."""
    fill, waiting = FILLS[system]
    fill(db, 300)
    total = db.value(waiting)
    take = {
        "procrastinate": "update procrastinate_jobs set status = 'doing' where id = (select id from procrastinate_jobs where status = 'todo' and lock is null order by random() limit 1 for update skip locked) returning 1",
        "pg-boss": "update pgboss.job set state = 'active' where id = (select id from pgboss.job where state = 'created' and name = 'email' order by random() limit 1 for update skip locked) returning 1",
        "river": "update river_job set state = 'running' where id = (select id from river_job where state = 'available' order by random() limit 1 for update skip locked) returning 1",
    }[system]
    taken, started = list[int](), threading.Barrier(3)

    def old_worker() -> None:
        with psycopg.connect(db.dsn, autocommit=True) as conn:
            started.wait()
            while conn.execute(take.encode()).fetchone() is not None:
                taken.append(1)

    workers = [threading.Thread(target=old_worker) for _ in range(2)]
    for worker in workers:
        worker.start()
    started.wait()
    # As a program: what changes the environment here would be seen by the threads.
    command = [sys.executable, "-m", "graphile_worker.gw.cli", "import", system, "--yes", "--json"]
    found = json.loads(run([*command, "--dsn", db.dsn]))
    for worker in workers:
        worker.join()
    moved = sum(found["jobs"].values())
    assert moved == db.value("select count(*) from graphile_worker.jobs")
    assert moved + len(taken) + db.value(waiting) == total


def test_nothing_is_moved_where_a_job_would_replace_another(db: Database) -> None:
    fill_procrastinate(db)
    db.rows("select graphile_worker.add_job('ours', job_key => 'welcome ann')")
    assert "nothing was moved" in imported(db, "procrastinate", "--yes", code=1)
    assert db.value("select count(*) from procrastinate_jobs where status = 'todo'") == 4
    assert db.column("select task_identifier from graphile_worker.jobs") == ["ours"]
    db.rows("update procrastinate_jobs set lock = repeat('x', 200) where task_name = 'resize'")
    db.rows("select graphile_worker.remove_job('welcome ann')")
    assert "128" in imported(db, "procrastinate", "--yes", code=1)
    assert db.value("select count(*) from procrastinate_jobs where status = 'todo'") == 4


def test_a_schedule_of_the_same_name_is_not_replaced(db: Database) -> None:
    fill_pg_boss(db)
    db.rows("select graphile_worker.schedule('report', 'ours', '0 4 * * *')")
    assert "gw schedule end report" in imported(db, "pg-boss", "--yes", code=1)
    assert db.value("select count(*) from pgboss.job where state = 'created'") == 5


def test_one_task_alone_is_moved(db: Database) -> None:
    fill_pg_boss(db)
    assert imported(db, "pg-boss", "--task", "sync", "--yes")["jobs"] == {"sync": 1}
    assert db.value("select count(*) from pgboss.schedule") == 1


def test_what_is_wrong_is_told_with_the_remedy(db: Database) -> None:
    assert "--from SCHEMA" in imported(db, "river", "--yes", code=1)
    assert "--from SCHEMA" in imported(db, "pg-boss", "--from", "nowhere", "--yes", code=1)
    assert "OLD=NEW" in imported(db, "river", "--name", "x", "--yes", code=1)
    fill_procrastinate(db)
    assert "--yes" in imported(db, "procrastinate", code=1)


def test_the_moved_jobs_run(db: Database, tmp_path: Path) -> None:
    fill_procrastinate(db)
    imported(db, "procrastinate", "--yes")
    (tmp_path / "moved.py").write_text(
        "from graphile_worker import Tasks\ntasks = Tasks()\n"
        "@tasks.task('send_email')\ndef send_email(to: str) -> None: print(f'sent to {to}\\n', end='', flush=True)\n"
        "@tasks.task('resize')\ndef resize(n: int) -> None: print(f'resized {n}\\n', end='', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "graphile_worker.gw.cli", "run", "moved", "--once", "--dsn", db.dsn],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert sorted(done.stdout.splitlines()) == ["resized 1", "resized 2", "sent to ann"]
