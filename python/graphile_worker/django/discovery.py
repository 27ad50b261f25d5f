"""What a worker runs: the tasks of the project, and when they are due by themselves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from django.db import close_old_connections
from django.utils import timezone
from django.utils.module_loading import autodiscover_modules

from graphile_worker import Tasks
from graphile_worker.client.tracing import class_path
from graphile_worker.django.backend import CLASS, GraphileWorkerBackend, error_of
from graphile_worker.django.framework import (
    InvalidTaskBackend,
    Task,
    TaskContext,
    TaskResult,
    TaskResultStatus,
    backends,
    normalize_json,
    signals,
)
from graphile_worker.errors import InvalidArgument, TasksError
from graphile_worker.log import logger
from graphile_worker.worker.context import Context, context
from graphile_worker.worker.executors.execute import error_text

#: What ``cron`` was told, by the path of the task.
_crons: dict[str, list[tuple[str, dict[str, Any]]]] = {}


def cron(
    expression: str, *, args: Any = (), kwargs: Mapping[str, Any] | None = None, **options: Any
) -> Callable[[Any], Any]:
    """Let a task of Django run at certain times, wherever a worker runs; stands above ``@task``.

    >>> @cron("0 4 * * 1", tz="Europe/London", kwargs={"kind": "weekly"})
    ... @task
    ... def report(kind): ...

    Args:
        expression: as in a crontab, see docs/cron.md.
        args: the task's positional arguments, as JSON has them.
        kwargs: its keyword arguments.
        options: ``tz``, ``id``, ``fill`` and the others of ``Tasks.cron``.

    Returns:
        A decorator that returns the task.

    Raises:
        InvalidArgument: what is decorated is no task.
    """

    def decorate(task: Any) -> Any:
        if not isinstance(task, Task):
            raise InvalidArgument(f"{task!r:.80} is no task of Django: put @cron above @task")
        payload = {"args": normalize_json(list(args)), "kwargs": normalize_json(dict(kwargs or {}))}
        _crons.setdefault(task.module_path, []).append(
            (expression, {**options, "payload": payload})
        )
        return task

    return decorate


def worker_tasks() -> Tasks:
    """Return the tasks that a worker runs: those of each app's module ``tasks``, and of OPTIONS.

    Raise TasksError if no backend of ours is in the settings, or there is no task.
    """
    ours = {alias for alias, found in _backends() if isinstance(found, GraphileWorkerBackend)}
    if not ours:
        raise TasksError(
            "no backend of TASKS is graphile_worker.django.GraphileWorkerBackend: set one"
        )
    autodiscover_modules("tasks")
    for _, found in _backends():
        for name in found.options.get("modules", ()) if found.alias in ours else ():
            import_module(name)
    tasks = Tasks()
    for task in _tasks_in_modules():
        if task.backend in ours and task.module_path not in tasks:
            _register(tasks, task)
    if not tasks:
        raise TasksError(
            "there are no tasks: put functions with @task into the module tasks of an app, or name"
            " their modules in OPTIONS['modules']"
        )
    return tasks


def _backends() -> list[tuple[str, Any]]:
    handler, found = backends(), []
    for alias in handler:
        try:
            found.append((alias, handler[alias]))
        except InvalidTaskBackend as error:  # of another package, which may be missing here
            logger.warning("TASKS[%r] is left out: %s", alias, error)
    return found


def _tasks_in_modules() -> list[Any]:
    found = {
        id(value): value
        for module in list(sys.modules.values())
        for value in list(getattr(module, "__dict__", {}).values())
        # isinstance would have Django's lazy objects made, which may need settings that are not set
        if issubclass(type(value), Task)
    }
    return sorted(found.values(), key=lambda task: str(task.module_path))


def _register(tasks: Tasks, task: Any) -> None:
    from inspect import iscoroutinefunction

    if iscoroutinefunction(task.func):

        async def run_async(
            args: list[Any] | None = None, kwargs: dict[str, Any] | None = None, **rest: Any
        ) -> Any:
            started = _Run(task, context(), args or [], kwargs or {})
            await signals.task_started.asend(started.sender, task_result=started.result)
            try:
                value = await task.acall(*started.args, **started.result.kwargs)
                started.succeeded(value)
            except BaseException as error:
                if started.failed(error):
                    await signals.task_finished.asend(started.sender, task_result=started.result)
                raise
            await signals.task_finished.asend(started.sender, task_result=started.result)
            return value

        registered = tasks.task(task.module_path)(run_async)
    else:

        def run_in_thread(
            args: list[Any] | None = None, kwargs: dict[str, Any] | None = None, **rest: Any
        ) -> Any:
            close_old_connections()
            try:
                started = _Run(task, context(), args or [], kwargs or {})
                signals.task_started.send(started.sender, task_result=started.result)
                try:
                    value = task.call(*started.args, **started.result.kwargs)
                    started.succeeded(value)
                except BaseException as error:
                    if started.failed(error):
                        signals.task_finished.send(started.sender, task_result=started.result)
                    raise
                signals.task_finished.send(started.sender, task_result=started.result)
                return value
            finally:
                close_old_connections()

        registered = tasks.task(task.module_path)(run_in_thread)
    for expression, options in _crons.get(task.module_path, []):
        tasks.cron(expression, **{"priority": -task.priority, **options})(registered)


class _Run:
    """One attempt of a task, as Django's signals and contexts tell of it."""

    def __init__(
        self, task: Any, current: Context, args: list[Any], kwargs: dict[str, Any]
    ) -> None:
        job, backend = current.job, task.get_backend()
        self.sender, self._job, now = type(backend), job, timezone.now()
        self.result = TaskResult(
            task=task, id=str(job.id), status=TaskResultStatus.RUNNING,
            enqueued_at=job.created_at, started_at=now, last_attempted_at=now, finished_at=None,
            args=args, kwargs=kwargs, backend=backend.alias, errors=[],
            # The attempts before this one are known by their number only.
            worker_ids=[""] * (job.attempts - 1) + [str(job.locked_by)],
        )  # fmt: skip
        before = [TaskContext(task_result=self.result)] if task.takes_context else []
        self.args = [*before, *self.result.args]

    def succeeded(self, value: Any) -> None:
        """Note what the task returned; raise TypeError if JSON has no such value."""
        self._set(_return_value=normalize_json(value), status=TaskResultStatus.SUCCESSFUL)

    def failed(self, error: BaseException) -> bool:
        """Note the error; return whether it was the last attempt."""
        error.add_note(f"{CLASS}{class_path(error)}")
        self.result.errors.append(error_of(error_text(error)))
        is_last = bool(self._job.attempts >= self._job.max_attempts)
        self._set(status=TaskResultStatus.FAILED if is_last else TaskResultStatus.READY)
        return is_last

    def _set(self, **values: Any) -> None:
        for name, value in {**values, "finished_at": timezone.now()}.items():
            object.__setattr__(self.result, name, value)
