"""Find tasks: in registries, mappings, modules and folders."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from graphile_worker.client.tasks import Registry, Task
from graphile_worker.errors import InvalidIdentifier, TasksError
from graphile_worker.job import check_identifier
from graphile_worker.log import logger
from graphile_worker.worker.executors.call import Executors, RunnableTask, runnable
from graphile_worker.worker.executors.process import load_file
from graphile_worker.worker.executors.program import ProgramTask

#: A registry, a mapping of functions, a folder, or several of them.
Source = Any

# As in Node: what else is in the folder is no task.
_NAME = re.compile(r"[A-Za-z0-9_-]+")


def load_tasks(source: Source, executors: Executors | None = None) -> dict[str, RunnableTask]:
    """Return the tasks of a registry, a mapping, a folder (a path), or of several of them.

    Raise TasksError where there is none, or one that cannot be loaded, and InvalidIdentifier for an
    identifier that is used twice.
    """
    tasks: dict[str, RunnableTask] = {}
    for task in _each(source, executors or Executors()):
        check_identifier(task.identifier)
        if task.identifier in tasks:
            raise InvalidIdentifier(
                f"task {task.identifier!r} is there twice:"
                f" {tasks[task.identifier].origin} and {task.origin}"
            )
        tasks[task.identifier] = task
    if not tasks:
        raise TasksError(f"there are no tasks in {source!r:.200}")
    return tasks


def functions(source: Source) -> dict[str, Any]:
    """Return the functions and Tasks of registries and mappings, by identifier."""
    if isinstance(source, Mapping):
        return dict(source)
    if isinstance(source, Iterable) and not isinstance(source, str):
        return {name: task for part in source for name, task in functions(part).items()}
    raise TasksError(f"{source} is no registry or mapping of tasks, which have annotations")


def _each(source: Source, executors: Executors) -> Iterator[RunnableTask]:
    if isinstance(source, str | Path):
        yield from _folder(Path(source), executors)
    elif isinstance(source, Mapping):
        for identifier, task in source.items():
            check_identifier(identifier)
            yield runnable(identifier, task, executors)
    elif isinstance(source, Iterable):
        for part in source:
            yield from _each(part, executors)
    else:
        raise TasksError(
            f"tasks are {source!r:.80}: pass a registry, a mapping of functions, the path of a"
            " folder, or a list of them"
        )


# --- folders


def _folder(folder: Path, executors: Executors) -> Iterator[RunnableTask]:
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise TasksError(f"the folder of tasks {str(folder)!r} {what} (looked from {Path.cwd()})")
    yield from _walk(folder, "", executors, (folder.resolve(),))


def _walk(
    folder: Path, prefix: str, executors: Executors, outer: tuple[Path, ...]
) -> Iterator[RunnableTask]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(("_", ".")):
            continue
        if path.is_dir():
            # A link may lead back.
            if _NAME.fullmatch(path.name) and path.resolve() not in outer:
                inner = (*outer, path.resolve())
                yield from _walk(path, f"{prefix}{path.name}/", executors, inner)
        elif not _NAME.fullmatch(path.stem):
            logger.debug(
                "%s is not a task: its name contains more than letters, digits, _ and -", path
            )
        elif path.suffix == ".py":
            yield _python(prefix + path.stem, path, executors)
        elif path.is_file() and os.access(path, os.X_OK):
            yield ProgramTask(prefix + path.stem, path)
        else:
            logger.debug("%s is not a task: it is neither Python nor executable", path)


def _python(identifier: str, path: Path, executors: Executors) -> RunnableTask:
    try:
        module = load_file(path, again=True)
    except Exception as error:
        raise TasksError(f"{path} cannot be loaded: {error!r}") from error
    names = ("task", "default", path.stem.replace("-", "_"))
    for name in names:
        found = getattr(module, name, None)
        if callable(found):
            task = runnable(identifier, found, executors)
            task.origin = str(path)
            return task
    raise TasksError(
        f"{path} has no task: define a function called {', '.join(names[:-1])} or {names[-1]}, or"
        " let the name of a file that is none start with _"
    )


# --- the argument of `gw run`


def load_source(text: str) -> Source:
    """Return what a module, ``module:attribute`` or folder has, as ``load_tasks`` takes it.

    A module's tasks are its registries, or without any its mapping called ``tasks``. Modules are
    found from the current folder, too. Raise TasksError where nothing is there.
    """
    here = _import_from_here()
    folder = Path(text)
    if not text:
        raise TasksError(
            "the source of the tasks is empty: say a module, such as app.tasks, or a folder"
        )
    if folder.is_dir() and not (folder / "__init__.py").exists():
        return folder
    if "/" in text or os.sep in text or text in (".", ".."):
        if folder.is_dir():
            return folder
        raise TasksError(f"the folder of tasks {text!r} does not exist (looked from {here})")
    name, _, attribute = text.partition(":")
    module = _module(name)
    if attribute:
        found: Any = module
        for part in attribute.split("."):
            try:
                found = getattr(found, part)
            except AttributeError as error:
                raise TasksError(f"module {name} has no {attribute!r}") from error
        if isinstance(found, Task) or callable(found):
            raise TasksError(
                f"{text} is one function: name the registry or mapping that it is in, such as"
                f" {name}:tasks"
            )
        return found
    registries = {
        id(value): value for value in vars(module).values() if isinstance(value, Registry)
    }
    if registries:
        return list(registries.values())
    mapping = getattr(module, "tasks", None)
    if isinstance(mapping, Mapping):
        return mapping
    raise TasksError(
        f"module {name} has no tasks: make a registry there (tasks = Tasks()), a mapping called"
        f" tasks, or say which attribute to take ({name}:attribute)"
    )


def load_function(text: str) -> Any:
    """Return the function that ``module:function`` names; raise TasksError where there is none."""
    name, _, attribute = text.partition(":")
    _import_from_here()
    found = getattr(_module(name), attribute, None) if attribute else None
    if not callable(found):
        raise TasksError(f"{text!r} is no function: say module:function, such as app.logs:redact")
    return found


def _import_from_here() -> str:
    """Let modules be found from the current folder, which is returned."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return here


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise TasksError(f"module {name} cannot be imported: {error}") from error
        advice = f"; say {name[:-3]}, without .py" if name.endswith(".py") else ""
        raise TasksError(
            f"no module or folder {name!r} (looked from {Path.cwd()}){advice}"
        ) from error
    except Exception as error:
        raise TasksError(f"module {name} cannot be imported: {error!r}") from error
