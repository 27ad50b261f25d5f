"""Every Python block of the documentation runs, and prints what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.pg import Database

ROOT = Path(__file__).parents[2]
PAGES = [
    "README",
    *(
        f"docs/{name}"
        for name in (
            "add-job",
            "job-keys",
            "batch-jobs",
            "transactions",
            "typed-tasks",
            "worker",
            "tasks",
            "cron",
            "monitoring",
        )  # testing.md is a test suite: test_testing.py runs it
    ),
]


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_print_what_they_say(db: Database, page: str) -> None:
    text = (ROOT / f"{page}.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    info = db.connect().info
    env = {
        **os.environ, "PGHOST": info.host, "PGPORT": str(info.port), "PGUSER": "postgres",
        "PGDATABASE": db.name,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"(?m)^# -> (.*)$", code)


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    missing = [
        page.name for page in (ROOT / "docs").glob("*.md") if f"docs/{page.name}" not in readme
    ]
    assert missing == []
