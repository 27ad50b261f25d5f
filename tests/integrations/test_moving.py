"""The scripts that move from Celery and RQ, with the real packages and a real Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from graphile_worker.testing.embedded import free_port, unprivileged
from support.pg import Database, run

pytestmark = pytest.mark.majors(18)

HERE = Path(__file__).parent / "moving"
SCRIPTS = HERE.parents[2] / "docs" / "moving"
JOBS = """
    select jobs.task_identifier, private.payload, jobs.max_attempts, jobs.run_at > now()
    from graphile_worker.jobs join graphile_worker._private_jobs as private on private.id = jobs.id
    order by jobs.id
"""


class Shop:
    """Runs scripts and workers beside an application's modules."""

    def __init__(self, db: Database, folder: Path, redis: str) -> None:
        self.db, self.folder, self.notes = db, folder, folder / "notes"
        self.notes.touch()
        self.redis = redis
        self._env = {
            **os.environ, "REDIS": redis, "NOTES": str(self.notes), "GW_DSN": db.dsn,
            "PYTHONPATH": f"{folder}:{HERE}:{SCRIPTS}",
        }  # fmt: skip

    def python(self, *args: object) -> str:
        return run([sys.executable, *map(str, args)], cwd=self.folder, env=self._env)

    def work(self, module: str, text: str) -> None:
        (self.folder / f"{module}.py").write_text(text)
        self.python("-m", "graphile_worker.gw.cli", "run", module, "--once")

    def noted(self) -> list[str]:
        return self.notes.read_text().splitlines()


@pytest.fixture
def shop(db: Database, tmp_path: Path) -> Iterator[Shop]:
    port, program = free_port(), unprivileged(Path("/usr/bin/redis-server"), tmp_path / "bin")
    command: list[str | Path] = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--daemonize",
        "no",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as redis:
        assert redis.stdout is not None
        for line in redis.stdout:
            if "Ready to accept connections" in line:
                break
        try:
            yield Shop(db, tmp_path, f"redis://127.0.0.1:{port}/0")
        finally:
            redis.terminate()
            redis.stdout.read()


CELERY_WAITING = """
from celery_shop import *
report.delay("waits")
report.apply_async(kwargs={"kind": "later"}, countdown=3600)
retries.delay(1)
fails.delay()
by_itself.delay()
"""


def test_a_celery_applications_messages_tasks_and_beat_move(shop: Shop) -> None:
    shop.python("-c", CELERY_WAITING)
    script = SCRIPTS / "from_celery.py"
    moved = shop.python(script, "celery_shop:app", "--queue", "celery", "--schedules")
    assert "jobs: 5" in moved
    assert "schedules: nightly, often" in moved
    assert shop.db.rows(JOBS) == [
        ("shop.report", {"args": ["waits"], "kwargs": {}}, 4, False),
        ("shop.report", {"args": [], "kwargs": {"kind": "later"}}, 4, True),
        ("shop.retries", {"args": [1], "kwargs": {}}, 3, False),
        ("shop.fails", {"args": [], "kwargs": {}}, 4, False),
        ("shop.by_itself", {"args": [], "kwargs": {}}, 2, False),
    ]
    assert "jobs: 0" in shop.python(script, "celery_shop:app", "--queue", "celery")
    assert shop.db.rows("select name, task, cron, tz, payload from graphile_worker.schedules order by 1") == [
        ("nightly", "shop.report", "30 1 * * MON-FRI", "Europe/London", {"args": ["daily"], "kwargs": {}}),
        ("often", "shop.report", "*/15 * * * *", "Europe/London", {"args": [], "kwargs": {"kind": "q"}}),
    ]  # fmt: skip
    tasks = "from celery_shop import app\nfrom from_celery import tasks_of\ntasks = tasks_of(app)\n"
    shop.db.rows("select graphile_worker.run_schedule_now('nightly')")
    while shop.db.value(
        "select count(*) from graphile_worker.jobs where attempts < max_attempts and run_at < now() + '1 min'"
    ):
        shop.work("moved", tasks)
        shop.db.rows(
            "update graphile_worker._private_jobs set run_at = now() where run_at < now() + '1 min'"
        )
    assert sorted(shop.noted()) == [
        "by_itself", "by_itself", "fails", "report daily", "report waits", "retries 1 0", "retries 1 1", "retries 1 2",
    ]  # fmt: skip
    errors = dict(
        shop.db.rows("select task_identifier, last_error from graphile_worker.failed_jobs")
    )
    assert sorted(errors) == ["shop.by_itself", "shop.fails", "shop.retries"]
    assert "ValueError: as it is" in errors["shop.fails"]
    assert "raise ValueError" in errors["shop.fails"]


def test_a_job_is_added_with_the_transaction_where_delay_was(shop: Shop) -> None:
    shop.python(
        "-c",
        """
import os, psycopg
from celery_shop import report
from from_celery import delay
with psycopg.connect(os.environ["GW_DSN"]) as conn:
    delay(conn, report, "kept")
with psycopg.connect(os.environ["GW_DSN"]) as conn:
    delay(conn, report, kind="undone")
    conn.rollback()
""",
    )
    assert shop.db.rows(JOBS) == [("shop.report", {"args": ["kept"], "kwargs": {}}, 4, False)]


RQ_WAITING = """
import os
from datetime import timedelta
from redis import Redis
from rq import Queue, Retry
from rq_shop import send_email, unsent
queue = Queue(connection=Redis.from_url(os.environ["REDIS"]))
queue.enqueue(send_email, "ann", subject="Hi", retry=Retry(max=2))
queue.enqueue(send_email, "bob")
queue.enqueue_in(timedelta(hours=1), send_email, "later")
"""


def test_rqs_jobs_move_and_run(shop: Shop) -> None:
    shop.python("-c", RQ_WAITING)
    move = (SCRIPTS / "from_rq.py", "--redis", shop.redis, "--queue", "default")
    assert shop.python(*move).strip() == "jobs: 3"
    assert shop.db.rows(JOBS) == [
        ("rq_shop.send_email", {"args": ["ann"], "kwargs": {"subject": "Hi"}}, 3, False),
        ("rq_shop.send_email", {"args": ["bob"], "kwargs": {}}, 1, False),
        ("rq_shop.send_email", {"args": ["later"], "kwargs": {}}, 1, True),
    ]
    assert shop.python(*move).strip() == "jobs: 0"
    tasks = "from from_rq import tasks_of\ntasks = tasks_of(['rq_shop.send_email'])\n"
    shop.work("moved", tasks)
    assert sorted(shop.noted()) == ["sent ann Hi", "sent bob Hello"]


def test_a_move_that_was_ended_before_it_acknowledged_adds_each_job_once(shop: Shop) -> None:
    ends = """
import os
from {script} import *
def stopped(*args, **kwargs):
    os._exit(7)
{patch}
with WorkerUtils(os.environ["GW_DSN"]) as utils:
    {move}
"""
    shop.python("-c", CELERY_WAITING)
    shop.python("-c", RQ_WAITING)
    for script, patch, move in (
        (
            "from_celery",
            "from celery_shop import app\nimport kombu.message\nkombu.message.Message.ack = stopped",
            'move_backlog(app, ["celery"], utils)',
        ),
        (
            "from_rq",
            "Job.delete = stopped",
            'move_backlog(Redis.from_url(os.environ["REDIS"]), ["default"], utils)',
        ),
    ):
        text = ends.format(script=script, patch=patch, move=move)
        with pytest.raises(AssertionError, match="ended with 7"):
            shop.python("-c", text)
    assert len(shop.db.rows(JOBS)) == 8
    shop.python(SCRIPTS / "from_rq.py", "--redis", shop.redis, "--queue", "default")
    shop.python(SCRIPTS / "from_celery.py", "celery_shop:app", "--queue", "celery")
    assert len(shop.db.rows(JOBS)) == 8
