"""A project of Django, its commands, and scripts in its shell: each a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from support.pg import Database

#: Of another version, to test on it: with Django 6 instead of the backport.
PYTHON = os.environ.get("GW_DJANGO_PYTHON", sys.executable)
SHOP = Path(__file__).parent / "shop"
G = "graphile_worker"
#: Each script begins so, and prints what it found as JSON with `show`.
HEAD = """
import json
from django.db import transaction, connection
from django.utils import timezone
from app.tasks import *
try:
    from django.tasks import task_backends, signals, exceptions
except ImportError:
    from django_tasks import task_backends, signals, exceptions
backend = task_backends["default"]
def show(*values):
    print(json.dumps(values, default=str))
"""


class Project:
    """Runs commands of the project on a database."""

    def __init__(self, db: Database, folder: Path = SHOP) -> None:
        self.folder = folder
        info = db.connect().info
        self.env = {
            **os.environ, "PGHOST": info.host, "PGPORT": str(info.port), "PGUSER": "postgres",
            "PGDATABASE": db.name, "PYTHONPATH": str(folder), "GW_DSN": "",
        }  # fmt: skip

    def manage(self, *args: str, code: int = 0, **env: str) -> str:
        done = subprocess.run(
            [PYTHON, "-W", "error::DeprecationWarning:graphile_worker", "manage.py", *args],
            cwd=self.folder, env={**self.env, **env}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + (done.stderr if code else "")

    def python(self, script: str) -> list[Any]:
        lines = self.manage("shell", "-c", HEAD + textwrap.dedent(script)).splitlines()
        return [json.loads(line) for line in lines if line.startswith("[")]

    def work(self) -> None:
        self.manage("gw", "run", "--once")
