"""gw run as a program: where tasks come from, one process and several, signals, and health."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.error import URLError

import pytest
from graphile_worker.testing.embedded import free_port
from support.pg import Database, wait_for

from gw.program import program

pytestmark = pytest.mark.majors(18)

TASKS = """
import asyncio
import os
import psycopg
from graphile_worker import Tasks

tasks = Tasks()


def note(what):
    with psycopg.connect(os.environ["GW_DSN"]) as conn:
        conn.execute("insert into public.ran values (%s, %s)", (os.getpid(), what))


@tasks.task("note")
async def short(what: str) -> None:
    note(what)


@tasks.task("long")
async def long(seconds: float) -> None:
    note("begun")
    await asyncio.sleep(seconds)
    note("ended")


@tasks.task("loop")
async def loop() -> None:
    note(type(asyncio.get_running_loop()).__module__)


@tasks.cron("0 * * * *", fill="2h")
async def hourly() -> None:
    note("hourly")
"""


@pytest.fixture
def app(db: Database, tmp_path: Path) -> Path:
    """A folder with a module of tasks, and the table that they write to."""
    (tmp_path / "app.py").write_text(TASKS)
    db.rows("create table public.ran (pid int, what text)")
    return tmp_path


@contextmanager
def started(
    db: Database, app: Path, *args: str, group: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """A gw run that is up: so many workers as it has processes beat."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "graphile_worker.gw.cli", "run", *args],
        cwd=app, env={**os.environ, "GW_DSN": db.dsn}, stderr=subprocess.PIPE, text=True,
        start_new_session=group,
    )  # fmt: skip
    count = int(args[args.index("--processes") + 1]) if "--processes" in args else 1
    try:
        wait_for(lambda: workers(db) == count or process.poll() is not None, "the workers are up")
        yield process
    finally:
        process.kill()
        # Shown by a test that fails.
        print(f"gw run, exit code {process.poll()}:", process.communicate()[1])


def workers(db: Database) -> int:
    count: int = db.value("select count(*) from graphile_worker.workers")
    return count


def add(db: Database, task: str, payload: str = "{}") -> None:
    db.rows("select graphile_worker.add_job(%s, %s)", task, payload)


def ran(db: Database) -> list[str]:
    return db.column("select what from public.ran order by 1")


def pids(db: Database) -> list[int]:
    return db.column("select (details ->> 'pid')::int from graphile_worker.workers order by 1")


def ended(process: subprocess.Popen[str]) -> str:
    """Wait for a worker that ends well; return its log."""
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    return log


def test_once_runs_a_module_and_a_folder_and_leaves(db: Database, app: Path) -> None:
    (app / "tasks").mkdir()
    (app / "tasks" / "sh").write_text('#!/bin/sh\ncat > "$(dirname "$0")/../seen"\n')
    (app / "tasks" / "sh").chmod(0o755)
    add(db, "note", '{"what": "one"}')
    add(db, "sh", '{"to": "disk"}')
    with started(db, app, "app", "tasks", "--once") as process:
        assert "hourly" not in ended(process)
    assert ran(db) == ["one"]
    assert json.loads((app / "seen").read_text()) == {"payload": {"to": "disk"}}
    assert db.value("select count(*) from graphile_worker.jobs") == 0
    assert workers(db) == 0


def test_recurring_jobs_come_from_tasks_and_from_the_crontab_of_the_folder(
    db: Database, app: Path
) -> None:
    (app / "crontab").write_text('0 * * * * note ?fill=1h&id=mine {what: "crontab"}\n')
    db.rows(
        "insert into graphile_worker._private_known_crontabs (identifier, known_since)"
        " values ('hourly', now() - interval '1 day'), ('mine', now() - interval '1 day')"
    )
    with started(db, app, "app:tasks") as process:
        wait_for(lambda: {"hourly", "crontab"} <= set(ran(db)))
        process.terminate()
        assert "recurring jobs are read from crontab" in ended(process)


def test_processes_share_the_work_and_those_that_die_are_started_again(
    db: Database, app: Path
) -> None:
    db.rows("select graphile_worker.set_recovery(interval '2 seconds')")
    with started(db, app, "app", "--processes", "2", "-c", "1") as process:
        before = pids(db)
        add(db, "long", '{"seconds": 0.5}')
        add(db, "long", '{"seconds": 0.5}')
        wait_for(lambda: ran(db).count("ended") == 2)
        assert db.column("select distinct pid from public.ran order by 1") == before
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: len(set(pids(db)) - {before[0]}) == 2, "another takes its place")
        os.kill(before[1], signal.SIGTERM)
        wait_for(lambda: len(set(pids(db)) - set(before)) == 2, "one told to stop is replaced, too")
        add(db, "note", '{"what": "after"}')
        wait_for(lambda: "after" in ran(db))
        process.send_signal(signal.SIGINT)
        assert f"process {before[0]} was ended by SIGKILL" in ended(process)
    assert set(pids(db)) <= {before[0]}, "who may be presumed dead a little later"


def test_a_signal_to_all_processes_at_once_lets_running_jobs_end(db: Database, app: Path) -> None:
    with started(db, app, "app", "--processes", "2", group=True) as process:
        add(db, "long", '{"seconds": 2}')
        wait_for(lambda: ran(db) == ["begun"])
        for number in (signal.SIGINT, signal.SIGTERM):  # of which the second would force
            for pid in pids(db):
                os.kill(pid, number)
        os.killpg(process.pid, signal.SIGTERM)
        ended(process)
    assert ran(db) == ["begun", "ended"]
    assert db.value("select count(*) from graphile_worker.jobs") == 0
    assert workers(db) == 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_second_signal_fails_what_runs_and_leaves(
    db: Database, app: Path, processes: str
) -> None:
    with started(db, app, "app", "--processes", processes) as process:
        add(db, "long", '{"seconds": 60}')
        wait_for(lambda: ran(db) == ["begun"])
        process.terminate()
        assert process.stderr is not None
        while "stopping: 1 jobs are running" not in process.stderr.readline():
            assert process.poll() is None
        process.terminate()
        ended(process)
    assert db.row("select attempts, locked_by from graphile_worker.jobs") == (1, None)
    assert "force" in db.value("select last_error from graphile_worker.jobs")


def test_when_the_main_process_is_killed_the_others_end_their_jobs_and_stop(
    db: Database, app: Path
) -> None:
    with started(db, app, "app", "--processes", "2") as process:
        add(db, "long", '{"seconds": 1}')
        wait_for(lambda: ran(db) == ["begun"])
        process.kill()
        wait_for(lambda: workers(db) == 0)
    assert ran(db) == ["begun", "ended"]


def test_each_process_tells_of_its_health(db: Database, app: Path) -> None:
    port = two_ports()
    with started(
        db, app, "app", "--processes", "2", "--uvloop", "--metrics-port", str(port)
    ) as process:
        add(db, "loop")
        wait_for(lambda: ran(db) == ["uvloop"])
        for each in (port, port + 1):
            wait_for(partial(got, each, "/healthz"))
            health = json.loads(got(each, "/healthz") or "{}")
            assert (health["ok"], health["listening"]) == (True, True)
        numbers = [got(each, "/metrics") or "" for each in (port, port + 1)]
        done = 'graphile_worker_jobs_total{outcome="success",task="loop"} 1.0'
        assert sum(done in each for each in numbers) == 1
        process.terminate()
        ended(process)


def two_ports() -> int:
    """Return a free port whose next one is free as well, which takes a look: it may be a client's."""
    while True:
        port = free_port()
        with suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
            return port


def got(port: int, path: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            text: str = answer.read().decode()
            return text
    except (URLError, ConnectionError):
        return None


def test_what_cannot_be_run_is_told_once_and_plainly(db: Database, app: Path) -> None:
    def failed(*args: str, **env: str) -> str:
        text = program(
            db,
            "run",
            *args,
            code=1,
            env={"PYTHONPATH": f"{app}:{os.environ.get('PYTHONPATH', '')}", **env},
        )
        assert "Traceback" not in text
        return text

    assert "no module or folder 'tasks'" in failed("--once")
    (app / "bad").write_text("0 * * * *\n")
    assert "crontab line 1" in failed("app", "--crontab", str(app / "bad"))
    assert "cannot be read" in failed("app", "--crontab", str(app / "none"))
    assert "use at most 65534" in failed("app", "--processes", "2", "--metrics-port", "65535")
    nowhere = failed("app", "--processes", "2", "--schema", "elsewhere")
    assert nowhere.count("gw:") == 1
    assert "elsewhere" in nowhere


def test_secrets_are_left_out_by_a_function_of_yours(db: Database, app: Path) -> None:
    (app / "secrets_of_app.py").write_text(
        "def redact(what, value, job):\n    return value.replace('secret', '***')\n"
    )
    (app / "app.py").write_text(
        TASKS
        + "\n\n@tasks.task('sign_in')\nasync def sign_in() -> None:\n    raise ValueError('the secret')\n"
    )
    job = db.value("select id from graphile_worker.add_job('sign_in', max_attempts => 1)")
    with started(db, app, "app", "--once", "--redact", "secrets_of_app:redact") as process:
        ended(process)
    error = db.value("select last_error from graphile_worker.jobs where id = %s", job)
    assert "the ***" in error
    with started(db, app, "app", "--once", "--redact", "secrets_of_app:none") as process:
        _, log = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "is no function: say module:function" in log


def test_with_reload_what_is_saved_runs(db: Database, app: Path) -> None:
    def save(note: str) -> None:
        (app / "app.py").write_text(TASKS.replace("note(what)\n\n\n@", f"note({note})\n\n\n@", 1))

    def ran_now(what: str) -> bool:
        return what in ran(db)

    with started(db, app, "app", "--reload") as process:
        add(db, "note", '{"what": "first"}')
        wait_for(lambda: ran_now("first"))
        before = pids(db)
        save("what + ', changed'")
        wait_for(lambda: workers(db) == 1 and pids(db) != before)
        add(db, "note", '{"what": "second"}')
        wait_for(lambda: ran_now("second, changed"))
        add(db, "long", '{"seconds": 0.2}')
        wait_for(lambda: ran_now("begun"))
        save("what")  # the running job ends first
        wait_for(lambda: ran_now("ended"))
        process.send_signal(signal.SIGTERM)
        log = ended(process)
    assert "app.py changed: starting again" in log
    assert workers(db) == 0


def test_with_reload_a_mistake_is_waited_out_and_a_signal_ends_it(db: Database, app: Path) -> None:
    (app / "app.py").write_text("def broken(:\n")
    add(db, "note", '{"what": "mended"}')
    process = subprocess.Popen(
        [sys.executable, "-m", "graphile_worker.gw.cli", "run", "app", "--reload"],
        cwd=app, env={**os.environ, "GW_DSN": db.dsn}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None

    def waits(log: Iterable[str]) -> None:
        assert any("it starts again when a file changes" in line for line in log)

    try:
        waits(process.stderr)
        (app / "app.py").write_text(TASKS)
        wait_for(lambda: ran(db) == ["mended"])
        (app / "app.py").write_text("def broken(:\n")
        waits(process.stderr)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stderr.close()
