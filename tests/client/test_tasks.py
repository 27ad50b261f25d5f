"""Functions as tasks: added with their own parameters, which the type checkers check."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import graphile_worker as gw
import psycopg
import pytest
from graphile_worker import aio, errors
from support.pg import NODE, SERVERS, Database

from client.faces import Face

pytestmark = pytest.mark.majors(18)

HERE = Path(__file__).parent


def registry(face: Face, db: Database) -> tuple[Any, Any, Any]:
    utils = face.module.WorkerUtils(db.dsn)
    tasks = face.module.Tasks(utils)

    @tasks.task("send_email", queue_name="emails", max_attempts=5)
    def send_email(to: str, subject: str = "Hello", *, urgent: bool = False, **more: int) -> str:
        """Send an email."""
        return f"{subject} to {to}"

    return utils, tasks, send_email


def test_a_task_is_added_with_its_arguments_and_called_directly(face: Face, db: Database) -> None:
    utils, tasks, send_email = registry(face, db)
    job = face.run(send_email.add("ann@example.org", urgent=True, n=1))
    assert job.payload == {"to": "ann@example.org", "urgent": True, "n": 1}
    assert (job.task_identifier, job.queue_name, job.max_attempts) == ("send_email", "emails", 5)
    assert send_email("ann", subject="Hi") == "Hi to ann"
    assert (send_email.__name__, send_email.__doc__) == ("send_email", "Send an email.")
    assert (list(tasks), len(tasks), tasks["send_email"]) == (["send_email"], 1, send_email)

    # As a worker in any language would run it.
    with psycopg.connect(db.dsn, autocommit=True) as worker:
        take = "select task_identifier, payload from graphile_worker.get_jobs('w', 1, %s)"
        ((identifier, payload),) = worker.execute(take, [list(tasks)]).fetchall()
    assert tasks[identifier](**payload) == "Hello to ann@example.org"
    face.run(utils.close())


def test_options_are_changed_for_one_call_and_the_task_stays_as_it_is(
    face: Face, db: Database
) -> None:
    utils, _, send_email = registry(face, db)
    later = send_email.with_options(job_key="k", run_at=timedelta(hours=1), queue_name=None)
    job = face.run(later.add("ann"))
    assert (job.key, job.queue_name, job.max_attempts) == ("k", None, 5)
    assert job.run_at - job.created_at == timedelta(hours=1)
    assert send_email.spec == gw.TaskSpec(queue_name="emails", max_attempts=5)
    specs = [send_email.job("ann"), later.job(to="bob")]
    jobs = face.run(utils.add_jobs(specs))
    assert [(job.payload, job.queue_name, job.revision) for job in jobs] == [
        ({"to": "ann"}, "emails", 0), ({"to": "bob"}, None, 1)
    ]  # fmt: skip
    face.run(utils.close())


def test_a_task_is_added_in_the_callers_transaction_of_either_kind(
    face: Face, db: Database
) -> None:
    utils, _, send_email = registry(face, db)
    with psycopg.connect(db.dsn) as conn:
        send_email.with_options(conn=conn).add("ann")
        conn.rollback()
        kept = send_email.with_options(conn=conn).with_options(priority=3).add("bob")

    async def main() -> gw.Job:
        async with await psycopg.AsyncConnection.connect(db.dsn) as conn:
            await send_email.with_options(conn=conn).add("ann")
            await conn.rollback()
            job: gw.Job = await send_email.with_options(conn=conn).add("eve")
            return job

    awaited = asyncio.run(main())
    assert db.rows("select id, priority from graphile_worker.jobs order by id") == [
        (kept.id, 3), (awaited.id, 0)
    ]  # fmt: skip
    face.run(utils.close())


def test_tasks_are_bound_when_the_application_starts(face: Face, db: Database) -> None:
    tasks = face.module.Tasks()

    @tasks.task("t")
    async def t(n: int) -> None: ...

    with pytest.raises(errors.InvalidConnection, match=r"with_options\(conn=...\)"):
        face.run(t.add(1))
    with psycopg.connect(db.dsn) as conn:
        assert t.with_options(conn=conn).add(1).payload == {"n": 1}
    utils = face.module.WorkerUtils(db.dsn)
    tasks.bind(utils)
    assert face.run(t.add(n=2)).payload == {"n": 2}
    face.run(utils.close())


def test_what_cannot_be_a_task_or_its_arguments_is_refused(face: Face) -> None:
    tasks = face.module.Tasks()

    @tasks.task("t")
    def t(n: int) -> None: ...

    for arguments in ({}, {"n": 1, "m": 2}):
        with pytest.raises(errors.InvalidPayload, match="task t: "):
            t.job(**arguments)
    with pytest.raises(errors.InvalidIdentifier, match=r"is taken, by .*test_tasks"):
        tasks.task("t")(lambda: None)
    with pytest.raises(errors.InvalidIdentifier):
        tasks.task(t)
    with pytest.raises(errors.InvalidPriority):
        tasks.task("u", priority="high")

    def by_position(n: int, /) -> None: ...
    def rest(*numbers: int) -> None: ...

    for function in (by_position, rest):
        with pytest.raises(errors.InvalidPayload, match="only be passed by position"):
            tasks.task("u")(function)
    assert list(tasks) == ["t"]


CHECKED = HERE / "checked_by_types.py"


def expected() -> set[int]:
    """Return the numbers of the lines that say they are wrong."""
    lines = CHECKED.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if "# wrong" in line}


def _flagged(command: Sequence[object], pattern: str) -> set[int]:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=HERE.parents[1],
    )
    found = {int(number) for number in re.findall(pattern, done.stdout)}
    assert found, done.stdout + done.stderr
    return found


def test_mypy_finds_every_wrong_call_and_no_other() -> None:
    config = ["--config-file", HERE.parents[1] / "pyproject.toml"]
    command = [sys.executable, "-m", "mypy", *config, "--no-incremental", CHECKED]
    assert _flagged(command, rf"{CHECKED.name}:(\d+): error") == expected()


def test_pyright_finds_every_wrong_call_and_no_other() -> None:
    command = [
        NODE, SERVERS / "pyright" / "index.js", "--pythonpath", sys.executable, CHECKED,
    ]  # fmt: skip
    assert _flagged(command, rf"{CHECKED.name}:(\d+):\d+ - error") == expected()


def test_pyright_finds_nothing_in_the_package() -> None:
    package = Path(gw.__file__).parent
    without_types = ("django", "__pycache__")  # Django's own names have none
    parts = [p for p in package.iterdir() if p.name not in without_types]
    done = subprocess.run(
        [NODE, SERVERS / "pyright" / "index.js", "--pythonpath", sys.executable, *parts],
        capture_output=True, text=True, timeout=300, cwd=HERE.parents[1],
    )  # fmt: skip
    assert "0 errors, 0 warnings" in done.stdout, done.stdout + done.stderr


def test_the_public_names_are_few_and_alike_and_have_an_example() -> None:
    assert len(gw.__all__) <= 16
    assert set(aio.__all__) <= set(gw.__all__)
    for name in gw.__all__:
        assert getattr(gw, name) is not None
    for module in (gw, aio):
        for name in set(module.__all__) - {"__version__"}:
            public = getattr(module, name)
            assert ">>>" in (public.__doc__ or ""), name
    for kind in (gw.WorkerUtils, gw.Task, gw.Tasks):
        for name, verb in inspect.getmembers(kind, inspect.isfunction):
            mapping = name in ("get", "items", "keys", "values")
            assert mapping or name.startswith("_") or ">>>" in (verb.__doc__ or ""), (kind, name)


def test_adding_jobs_imports_no_worker_template_or_framework() -> None:
    code = (
        "import sys, graphile_worker\n"
        "[getattr(graphile_worker, name) for name in graphile_worker.__all__]\n"
        "heavy = {'jinja2', 'sqlalchemy', 'django', 'pydantic', 'opentelemetry', 'psycopg_pool', 'argparse'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
