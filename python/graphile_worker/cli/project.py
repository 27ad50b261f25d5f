"""What a project says in its pyproject.toml: ``[tool.graphile_worker]`` with dsn, schema, tasks."""

from __future__ import annotations

import argparse
import os
import tomllib
from pathlib import Path
from typing import Any

from graphile_worker.cli.flags import FromEnvironment
from graphile_worker.errors import GraphileWorkerError

TABLE = "tool.graphile_worker"


def read(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """Return the nearest pyproject.toml of a folder or one above it, and its table of ours.

    Raise GraphileWorkerError for a file that cannot be read, and for what does not belong there.
    """
    for each in (folder, *folder.parents):
        path = each / "pyproject.toml"
        if not path.is_file():
            continue
        try:
            found: Any = tomllib.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise GraphileWorkerError(f"{path} cannot be read: {error}") from error
        for part in TABLE.split("."):
            found = found.get(part, {}) if isinstance(found, dict) else {}
        return path, _checked(path, found)
    return None, {}


def _checked(path: Path, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise GraphileWorkerError(f"{path}: {TABLE} is no table: write [{TABLE}]")
    for name, value in found.items():
        if name not in ("dsn", "schema", "tasks"):
            raise GraphileWorkerError(
                f"{path}: {TABLE} has no setting {name!r}: use dsn, schema or tasks"
            )
        texts = value if name == "tasks" and isinstance(value, list) else [value]
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise GraphileWorkerError(
                f"{path}: {name} is {value!r}: write a text"
                + (", or a list of texts" if name == "tasks" else "")
            )
    return found


def apply(options: argparse.Namespace) -> None:
    """Put the project's settings where neither a flag nor a variable said something."""
    wanted = {name for name in ("dsn", "schema", "tasks") if _is_open(options, name)}
    if not wanted:
        return
    _, found = read(Path.cwd())
    for name in wanted & set(found):
        value = found[name]
        setattr(options, name, [value] if name == "tasks" and isinstance(value, str) else value)


def _is_open(options: argparse.Namespace, name: str) -> bool:
    if name == "tasks":  # of gw run; other commands name tasks with flags
        return getattr(options, "command", None) == "run" and not options.tasks
    value = getattr(options, name, None)
    given = os.environ.get(f"GW_{name.upper()}")
    return not given and (value == "" or isinstance(value, FromEnvironment))
