"""The reference workers, ours and Node's keep the rules that docs/conformance.md says they keep."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.pg import NODE, SERVERS, run

pytestmark = pytest.mark.majors(18)

ROOT = Path(__file__).parents[2]
WORKERS = ROOT / "examples/workers"
GW = [sys.executable, "-m", "graphile_worker.gw.cli"]

slow = pytest.mark.slow
FLEET = [
    "Go", "TypeScript", "Ruby", "Python", "Node 0.18",
    pytest.param("psql", marks=slow), pytest.param("Node 0.17", marks=slow),
]  # fmt: skip


def kept_by(worker: str) -> dict[int, bool]:
    """What the page says of a worker, by rule."""
    page = (ROOT / "docs/conformance.md").read_text()
    heading, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in re.findall(r"^\| (?:rule|\d).*$", page, re.MULTILINE)
    )
    column = heading.index(worker)
    return {int(row[0]): row[column].startswith("yes") for row in rows}


def command(worker: str, folder: Path) -> list[str | Path]:
    """How a process of the worker is started; what has to be compiled is."""
    match worker:
        case "Go":
            env = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode"}
            env["GOCACHE"] = str(folder / "cache")
            files = sorted(WORKERS.glob("go/*.go"))
            run(["go", "build", "-o", folder / "worker", *files], env=env)
            return [folder / "worker"]
        case "TypeScript":
            (folder / "worker.ts").write_text((WORKERS / "worker.ts").read_text())
            (folder / "package.json").write_text('{"type": "module"}')
            (folder / "node_modules").symlink_to(SERVERS)
            return [NODE, folder / "worker.ts"]
        case "Ruby":
            return ["ruby", "-w", WORKERS / "worker.rb"]
        case "psql":
            return ["sh", WORKERS / "worker.sh"]
        case "Python":
            (folder / "tasks.py").write_text((WORKERS / "tasks.py").read_text())
            line = shlex.join(GW) + (
                ' run --dsn "$DATABASE_URL" --concurrency "$CONFORMANCE_CONCURRENCY"'
                ' --poll-interval "$CONFORMANCE_POLL_SECONDS" --grace "$CONFORMANCE_GRACE_SECONDS"'
            )
            return ["sh", "-c", f"cd {shlex.quote(str(folder))} && exec {line}"]
        case _:
            return [NODE, ROOT / "tests/interop/conformance.js"]


@pytest.mark.parametrize("worker", FLEET)
def test_a_worker_keeps_what_the_page_says(
    worker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--timeout", "90"]
    if worker.startswith("Node"):
        monkeypatch.setenv(
            "GW_MODULE", str(SERVERS / f"graphile-worker-{worker[5:].replace('.', '')}")
        )
        flags = ["--owner", "--timeout", "15"]
    started = shlex.join(map(str, command(worker, tmp_path)))
    done = subprocess.run(
        [*GW, "conformance", "--command", started, "--json", *flags],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    print(*(check for check in found["checks"] if not check["is_kept"]), sep="\n")
    assert {rule["rule"]: rule["is_kept"] for rule in found["rules"]} == kept_by(worker)
    assert done.returncode == (1 if worker.startswith("Node") else 0)
