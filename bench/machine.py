"""What the figures were measured with: the machine, and the versions of all that ran."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psycopg
from peers.node import NODE, SERVERS

#: Of Python, by the names under which they are installed.
PACKAGES = (
    "graphile-worker", "psycopg", "uvloop", "procrastinate", "pgqueuer", "asyncpg", "awa-pg",
)  # fmt: skip


def describe(dsn: str) -> dict[str, Any]:
    """Return it all, by name."""
    with psycopg.connect(dsn) as connection:
        (server,) = connection.execute("show server_version").fetchone() or ("",)
    node = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True)
    package = SERVERS / "node_modules" / "graphile-worker-018" / "package.json"
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "memory": f"{int((_field('/proc/meminfo', 'MemTotal') or '0').split()[0]) / 2**20:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "versions": {
            "PostgreSQL": server.split()[0],
            "Python": platform.python_version(),
            "Node": node.stdout.strip().lstrip("v"),
            "Node's graphile-worker": json.loads(package.read_text())["version"],
            **{name: found for name in PACKAGES if (found := _version(name))},
        },
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _field(path: str, name: str) -> str | None:
    file = Path(path)
    found = file.exists() and re.search(rf"(?m)^{name}\s*:\s*(.*)$", file.read_text())
    return found[1] if found else None
