"""Where tasks come from: registries, mappings, modules, and folders with files of any language."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from graphile_worker import Tasks
from graphile_worker.errors import InvalidIdentifier, TaskCrashed, TasksError
from graphile_worker.worker.context import Context
from graphile_worker.worker.executors import program as programs
from graphile_worker.worker.executors.call import Executors
from graphile_worker.worker.task_loading import load_source, load_tasks
from support.pg import wait_for

from worker.contexts import a_context, alive


def write(path: Path, text: str, *, executable: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755 if executable else 0o644)
    return path


def call(source: Any, identifier: str, payload: Any = None, ctx: Context | None = None) -> Any:
    async def main() -> Any:
        executors = Executors(processes=1)
        try:
            task = load_tasks(source, executors)[identifier]
            return await task.call(payload, ctx or a_context(payload))
        finally:
            await executors.close()

    return asyncio.run(main())


def registry(identifier: str = "t") -> Any:
    tasks = Tasks()

    @tasks.task(identifier, timeout=5)
    def function(n: int = 0) -> int:
        return n

    return tasks


def test_a_registry_a_mapping_and_several_of_them_are_tasks(tmp_path: Path) -> None:
    write(tmp_path / "file.py", "def task(payload): ...")
    sources = [registry("a"), {"b": lambda: None, "c": registry()["t"]}, tmp_path, [{"d": print}]]
    tasks = load_tasks(sources)
    assert list(tasks) == ["a", "b", "c", "file", "d"]
    assert [task.identifier for task in tasks.values()] == list(tasks)
    assert [tasks[name].options.timeout for name in "abc"] == [5, None, 5]
    assert call({"c": registry()["t"]}, "c", {"n": "3"}) == 3


def test_an_identifier_that_is_there_twice_names_both(tmp_path: Path) -> None:
    write(tmp_path / "t.sh", "#!/bin/sh", executable=True)
    with pytest.raises(InvalidIdentifier, match=r"'t' is there twice: .*registry.* and .*t\.sh$"):
        load_tasks([registry(), tmp_path])
    write(tmp_path / "t.py", "def task(): ...")
    with pytest.raises(InvalidIdentifier, match=r"t\.py and .*t\.sh$"):
        load_tasks(str(tmp_path))
    with pytest.raises(InvalidIdentifier, match="pass a str"):
        load_tasks({3: print})


@pytest.mark.parametrize("source", [{}, [], [Tasks(), {}], 3, {"t": 3}, "/nowhere", __file__])
def test_what_has_no_tasks_is_refused(source: Any) -> None:
    with pytest.raises(TasksError):
        load_tasks(source)


def test_the_path_of_a_file_is_the_identifier(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "one.py", "def task(payload): return 'one'")
    write(tmp_path / "users" / "emails" / "send-it.py", "async def send_it(p): return p")
    write(tmp_path / "users" / "two.py", "def helper(): ...\ndefault = lambda: 'two'")
    write(tmp_path / "users" / "run.rb", "#!/usr/bin/env ruby", executable=True)
    write(tmp_path / "_helpers.py", "raise Exception")
    write(tmp_path / "__pycache__" / "x.py", "raise Exception")
    write(tmp_path / ".hidden", "", executable=True)
    write(tmp_path / "README.md", "")
    write(tmp_path / "a.b.py", "raise Exception")
    (tmp_path / "users" / "loop").symlink_to(tmp_path)
    with caplog.at_level(logging.DEBUG, "graphile_worker"):
        tasks = load_tasks(tmp_path)
    assert sorted(tasks) == ["one", "users/emails/send-it", "users/run", "users/two"]
    assert "README.md is not a task" in caplog.text
    assert call(tmp_path, "one") == "one"
    assert call(tmp_path, "users/emails/send-it", [1]) == [1]
    assert call(tmp_path, "users/two") == "two"


def test_python_files_may_have_types_registries_and_processes(tmp_path: Path) -> None:
    write(
        tmp_path / "typed.py",
        "from __future__ import annotations\n"
        "import os\n"
        "from dataclasses import dataclass\n"
        "from graphile_worker import Tasks\n"
        "@dataclass\n"
        "class Email:\n"
        "    to: str\n"
        "@Tasks().task('other', executor='process', timeout=3)\n"
        "def typed(email: Email): return os.getpid(), email.to, email\n",
    )
    task = load_tasks(tmp_path)["typed"]
    assert (task.options.executor, task.options.timeout) == ("process", 3)
    pid, to, email = call(tmp_path, "typed", {"email": {"to": "ann"}})
    assert (pid == os.getpid(), to, email.to) == (False, "ann", "ann")


def test_a_python_file_without_a_task_or_with_an_error_says_so(tmp_path: Path) -> None:
    file = write(tmp_path / "send-it.py", "task = 3")
    with pytest.raises(TasksError, match=r"send-it\.py has no task: .*task, default or send_it"):
        load_tasks(tmp_path)
    write(file, "import nowhere_at_all")
    with pytest.raises(TasksError, match=r"send-it\.py cannot be loaded: ModuleNotFound.*nowhere"):
        load_tasks(tmp_path)


PRINTS = """#!/bin/sh
echo "$GRAPHILE_WORKER_PAYLOAD_FORMAT $GRAPHILE_WORKER_TASK_IDENTIFIER $GRAPHILE_WORKER_JOB_ID"
echo "${GRAPHILE_WORKER_JOB_KEY-none} $GRAPHILE_WORKER_JOB_ATTEMPTS $GRAPHILE_WORKER_JOB_MAX_ATTEMPTS"
echo "$GRAPHILE_WORKER_JOB_PRIORITY $GRAPHILE_WORKER_JOB_RUN_AT"
echo "careful" >&2
cat
"""


@pytest.mark.parametrize("key", [None, "k"])
def test_a_program_gets_the_job_as_from_node_and_its_lines_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    key: str | None,
) -> None:  # fmt: skip
    monkeypatch.setenv("GRAPHILE_WORKER_JOB_KEY", "of somebody else")
    write(tmp_path / "in" / "prints.sh", PRINTS, executable=True)
    payload = {"mol": 42, "text": "ö", "long": "x" * 200_000}
    with caplog.at_level(logging.INFO, "graphile_worker.task"):
        assert call(tmp_path, "in/prints", payload, a_context(key=key)) is None
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    assert told[:3] == [
        "json in/prints 7", f"{key or 'none'} 2 25", "-1 2026-01-02T03:04:05.678Z"
    ]  # fmt: skip
    assert json.loads("".join(told[3:])) == {"payload": payload}
    (warning,) = (r for r in caplog.records if r.levelno == logging.WARNING)
    assert (warning.getMessage(), warning.__dict__["job_id"]) == ("careful", 7)


def test_what_a_program_writes_is_logged_up_to_a_limit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "floods", "#!/bin/sh\nyes flood | head -c 20000000; exit 3", executable=True)
    with (
        caplog.at_level(logging.INFO, "graphile_worker.task"),
        pytest.raises(TaskCrashed, match="exit code 3"),
    ):
        call(tmp_path, "floods")
    assert sum(len(record.getMessage()) for record in caplog.records) < 2 * programs.LOGGED
    (warning,) = (r for r in caplog.records if r.levelno == logging.WARNING)
    assert "further output is not logged" in warning.getMessage()


def test_a_program_that_fails_says_how_and_with_its_last_words(tmp_path: Path) -> None:
    write(tmp_path / "fails", "#!/bin/sh\nprintf 'oh\\nno' >&2\nexit 3", executable=True)
    write(tmp_path / "long", "#!/bin/sh\nhead -c 9999 /dev/zero | tr '\\0' x >&2; exit 1", executable=True)  # fmt: skip
    write(tmp_path / "killed", "#!/bin/sh\nkill -9 $$", executable=True)
    write(tmp_path / "nothing", "no program at all", executable=True)
    with pytest.raises(TaskCrashed, match=r"fails ended with exit code 3: oh\nno$"):
        call(tmp_path, "fails", "x" * 1_000_000)
    with pytest.raises(TaskCrashed, match=r"long ended with exit code 1: x{4096}$"):
        call(tmp_path, "long")
    with pytest.raises(TaskCrashed, match=r"killed was ended by SIGKILL$"):
        call(tmp_path, "killed")
    with pytest.raises(TaskCrashed, match="nothing cannot be run: Exec format error"):
        call(tmp_path, "nothing")


@pytest.mark.parametrize("deaf", [False, True])
def test_a_cancelled_program_and_what_it_started_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    monkeypatch.setattr(programs, "KILL_AFTER", 0.2 if deaf else 60)
    pids = tmp_path / "pids"
    trap = "trap '' TERM; " if deaf else ""
    write(
        tmp_path / "tasks" / "slow",
        f"#!/bin/sh\n{trap}sleep 600 &\necho $$ $! > {pids}.new; mv {pids}.new {pids}\nwait; wait",
        executable=True,
    )

    async def main() -> None:
        program = load_tasks(tmp_path / "tasks")["slow"]
        running = asyncio.create_task(program.call({}, a_context()))
        await asyncio.to_thread(wait_for, pids.exists)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    for pid in map(int, pids.read_text().split()):
        wait_for(lambda pid=pid: not alive(pid))  # type: ignore[misc]


def test_a_program_that_is_cancelled_while_it_starts_is_ended_too(tmp_path: Path) -> None:
    write(tmp_path / "slow", "#!/bin/sh\nsleep 600", executable=True)

    async def main(steps: int) -> None:
        program = load_tasks(tmp_path)["slow"]
        running = asyncio.create_task(program.call({}, a_context()))
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(30):
                await running

    for steps in range(12):
        asyncio.run(main(steps))
    assert [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(tmp_path).encode() in path.read_bytes()
    ] == []


# --- load_source


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a package called gwt_app."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in sys.modules if name.startswith("gwt_app")]:
        monkeypatch.delitem(sys.modules, name)
    write(tmp_path / "gwt_app" / "__init__.py", "")
    return tmp_path / "gwt_app"


MADE = "from graphile_worker import Tasks\n{0} = Tasks()\n@{0}.task('{0}')\ndef f(): ...\n"


def test_a_module_is_found_by_its_registries_or_its_mapping(project: Path) -> None:
    write(project / "two.py", MADE.format("a") + MADE.format("b") + "c = b")
    write(project / "mapping.py", "tasks = {'m': print}\nclass inner:\n    deep = {'d': print}")
    write(project / "sub" / "file.py", "def task(): ...")
    for text, names in (
        ("gwt_app.two", ["a", "b"]),
        ("gwt_app.two:c", ["b"]),
        ("gwt_app.mapping", ["m"]),
        ("gwt_app.mapping:inner.deep", ["d"]),
        ("gwt_app/sub", ["file"]),
        (str(project / "sub"), ["file"]),
    ):
        assert list(load_tasks(load_source(text))) == names, text


def test_a_folder_that_is_no_package_is_a_folder_of_tasks(project: Path) -> None:
    write(project.parent / "gwt_app_tasks" / "file.py", "import gwt_app\ndef task(): ...")
    assert list(load_tasks(load_source("gwt_app_tasks"))) == ["file"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gwt_app", "module gwt_app has no tasks: make a registry"),
        ("gwt_app.nowhere", "no module or folder 'gwt_app.nowhere'"),
        ("gwt_nowhere", "no module or folder 'gwt_nowhere'.*looked from"),
        ("gwt_nowhere.py", "say gwt_nowhere, without .py"),
        ("gwt_app:x.y", "module gwt_app has no 'x.y'"),
        ("gwt_app.broken", "module gwt_app.broken cannot be imported: No module named 'gwt_lost'"),
        ("gwt_app.raises", r"module gwt_app.raises cannot be imported: ValueError\('x'\)"),
        ("gwt_app.one:f", "is one function: name the registry"),
        ("./nowhere", "the folder of tasks './nowhere' does not exist"),
        ("", "is empty: say a module"),
    ],
)
def test_what_is_not_found_is_told_with_what_to_do(project: Path, text: str, message: str) -> None:
    write(project / "broken.py", "import gwt_lost")
    write(project / "raises.py", "raise ValueError('x')")
    write(project / "one.py", MADE.format("a"))
    with pytest.raises(TasksError, match=message):
        load_source(text)
