"""Find the tasks that a worker runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphile_worker.errors import InvalidArgument, InvalidIdentifier
from graphile_worker.job import check_identifier
from graphile_worker.worker.calling import Executors, RunnableTask, runnable


def load_tasks(source: Any, executors: Executors) -> dict[str, RunnableTask]:
    """Return the tasks of a registry, of a mapping of functions, or of several of them.

    Raise InvalidIdentifier for an identifier that is there twice, InvalidArgument where there is
    nothing to run.
    """
    sources = [source] if isinstance(source, Mapping) else source
    if isinstance(sources, str) or not isinstance(sources, list | tuple):
        raise InvalidArgument(f"tasks is {source!r}: pass Tasks(), or a mapping of functions")
    found: dict[str, RunnableTask] = {}
    for tasks in sources:
        if not isinstance(tasks, Mapping):
            raise InvalidArgument(f"{tasks!r} is no tasks: pass Tasks(), or a mapping of functions")
        for identifier, task in tasks.items():
            check_identifier(identifier)
            if identifier in found:
                raise InvalidIdentifier(f"task {identifier!r} is there twice")
            if not callable(task):
                raise InvalidArgument(f"task {identifier!r} is {task!r}: pass a function")
            found[identifier] = runnable(identifier, task, executors)
    if not found:
        raise InvalidArgument("there is no task to run: pass at least one")
    return found
