"""Django 6's own tests of its tasks, from its source package, with our backend in place of its."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.pg import Database, run

pytestmark = [pytest.mark.majors(18), pytest.mark.slow]

DJANGO = "6.1.3"
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: Why a test cannot hold for a queue in a database.
NOT_OURS = {
    **dict.fromkeys(
        (
            "DummyBackendTestCase.test_refresh_result",
            "DummyBackendTestCase.test_refresh_result_async",
        ),
        "it changes the result in the dummy's own list",
    ),
    **dict.fromkeys(
        (
            "DummyBackendTestCase.test_get_missing_result",
            "TaskTestCase.test_get_missing_result",
            "TaskTestCase.test_refresh_result",
        ),
        "it does not await in a coroutine, where Django refuses queries",
    ),
    **dict.fromkeys(
        (
            "ImmediateBackendTestCase.test_cannot_get_result",
            "ImmediateBackendTestCase.test_cannot_refresh_result",
            "ImmediateBackendTestCase.test_cannot_pass_run_after",
        ),
        "the queue has results, and run_after",
    ),
    "ImmediateBackendTestCase.test_throws_keyboard_interrupt": "it fails the job; the worker goes on",
    "ImmediateBackendTransactionTestCase.test_doesnt_wait_until_transaction_commit_by_default": "a job is part of its transaction, and runs once that has committed",
}
REPLACED = {
    "from django.tasks.backends.dummy import DummyBackend": "from django_suite import Enqueues as DummyBackend",
    "from django.tasks.backends.immediate import ImmediateBackend": "from django_suite import EnqueuesAndRuns as ImmediateBackend",
    "django.tasks.backends.dummy.DummyBackend": "django_suite.Enqueues",
    "django.tasks.backends.immediate.ImmediateBackend": "django_suite.EnqueuesAndRuns",
    "SimpleTestCase": "DatabaseTestCase",
    "from django.test import DatabaseTestCase": "from django_suite import DatabaseTestCase\nfrom django.test import SimpleTestCase",
}


def _python() -> str:
    """A Python of 3.12 or later, which Django 6 needs."""
    names = [
        os.environ.get("GW_PYTHON_312"),
        sys.executable,
        "python3.14",
        "python3.13",
        "python3.12",
    ]
    for name in filter(None, names):
        found = shutil.which(name)
        asked = [found or "", "-c", "import sys; print(sys.version_info >= (3, 12))"]
        if found and subprocess.run(asked, capture_output=True, text=True).stdout == "True\n":
            return found
    raise AssertionError("Django 6 needs Python 3.12 or later: name one in GW_PYTHON_312")


def test_djangos_own_tests_of_tasks_pass(db: Database, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    run([_python(), "-m", "venv", venv])
    pip: list[str | Path] = [venv / "bin" / "pip", "install", "-q", "--no-cache-dir"]
    run(
        [
            venv / "bin" / "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            "django",
            "-d",
            tmp_path,
            f"django=={DJANGO}",
        ]
    )
    run(["tar", "-xzf", tmp_path / f"django-{DJANGO}.tar.gz", "-C", tmp_path])
    source = tmp_path / f"django-{DJANGO}"
    run([*pip, source, f"{ROOT}[embedded,worker,cli]"])
    suite = tmp_path / "suite"
    shutil.copytree(source / "tests" / "tasks", suite / "tasks")
    for module in (suite / "tasks").glob("test_*.py"):
        text = module.read_text()
        for before, after in REPLACED.items():
            text = text.replace(before, after)
        module.write_text(text)
    shutil.copy(HERE / "django_suite.py", suite)
    db.rows("select graphile_worker.keep_history(payloads := true)")
    info = db.connect().info
    env = {
        **os.environ, "PGHOST": info.host, "PGPORT": str(info.port), "PGUSER": "postgres",
        "PGDATABASE": db.name, "DJANGO_SETTINGS_MODULE": "django_suite", "PYTHONPATH": str(suite),
    }  # fmt: skip
    done = subprocess.run(
        [venv / "bin" / "python", "-m", "django", "test", "tasks", "--parallel", "1"],
        cwd=suite, env=env, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    said = done.stdout + done.stderr
    print(said)
    counted = re.search(r"Ran (\d+) tests", said)
    assert counted
    assert int(counted[1]) > 80
    failed = re.findall(r"^(?:FAIL|ERROR): \w+ \(tasks\.\w+\.(\w+\.\w+)\)", said, re.MULTILINE)
    assert set(failed) == set(NOT_OURS)
