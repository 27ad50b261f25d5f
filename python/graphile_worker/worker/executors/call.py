"""Call the functions of tasks: in the loop, in a thread, or in a process."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from graphile_worker.client.tasks import RunOptions, Task
from graphile_worker.crontab import CronItem
from graphile_worker.errors import TasksError
from graphile_worker.worker.context import Context, _current
from graphile_worker.worker.executors.arguments import (
    bind_by_name,
    bind_by_position,
    read_parameters,
)
from graphile_worker.worker.executors.process import Processes, Reference
from graphile_worker.worker.executors.thread import Threads


class RunnableTask(Protocol):
    """A task that a worker can run."""

    identifier: str
    options: RunOptions
    #: Where it comes from, for messages.
    origin: str
    #: When it is due by itself.
    crontab: Sequence[CronItem]
    #: Whether it is cancelled as soon as it is told to stop; else it has the grace to end.
    stops_at_once: bool

    def call(self, payload: Any, context: Context) -> Coroutine[Any, Any, Any]:
        """Run the task with a payload, in this context; await what it returns.

        Raise InvalidPayload for a payload that does not fit, which names the field; TaskCrashed
        where a process or program ended; and what the function raises. When it is cancelled, a
        coroutine is, a process is killed, and a thread is told by ``context.abort`` and left alone.
        """
        ...


class Executors:
    """Threads and processes for functions that are not coroutine functions, started at first use.

    ``threads`` is how many are kept idle: there is no limit to those that run but the worker's.
    ``processes`` is how many there are at most; None: one for each core.
    """

    def __init__(self, threads: int = 32, processes: int | None = None) -> None:
        self.threads = Threads(threads)
        self.processes = Processes(self.threads, processes)

    @property
    def abandoned_threads(self) -> int:
        """How many threads still run a function that was told to stop."""
        return self.threads.abandoned

    async def close(self) -> None:
        """End idle threads and kill processes; running threads are left alone."""
        self.processes.close()
        self.threads.close()


def runnable(identifier: str, function: Any, executors: Executors) -> RunnableTask:
    """Return a Task, or a function of (payload) or (payload, context), as a task that can run.

    A Task that has another identifier here takes its recurring jobs along.

    Raise TasksError for a function that cannot be called with payloads.
    """
    task = function if isinstance(function, Task) else None
    made = _runnable(identifier, task.function if task else function, task, executors)
    if task is not None:
        made.crontab = [
            replace(
                item,
                task=identifier,
                identifier=identifier if item.identifier == item.task else item.identifier,
            )
            for item in task.crontab
        ]
    return made


def _runnable(
    identifier: str, function: Any, task: Task[..., Any, Any] | None, executors: Executors
) -> RunnableTask:
    options = task.run if task else RunOptions()
    if not callable(function):
        raise TasksError(
            f"task {identifier} is {function!r:.80}: pass a function, or a task of a registry"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TasksError(f"task {identifier}: a generator function does nothing when it is called")
    parameters = read_parameters(identifier, function)
    bind = (bind_by_name if task else bind_by_position)(identifier, parameters)
    if _is_async(function):
        if options.executor == "process":
            raise TasksError(
                f"task {identifier}: a coroutine function runs in the worker's loop, in no process:"
                " write `def` instead of `async def`"
            )
        return CoroutineTask(identifier, function, options, bind)
    if options.executor == "process":
        if any(parameter.is_context for parameter in parameters):
            raise TasksError(
                f"task {identifier}: a context cannot be sent to a process: leave the parameter out"
            )
        return ProcessTask(identifier, function, options, bind, executors.processes)
    return ThreadTask(identifier, function, options, bind, executors.threads)


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - of an object that can be called
    )


class _FunctionTask:
    crontab: Sequence[CronItem] = ()
    stops_at_once = False

    def __init__(
        self, identifier: str, function: Callable[..., Any], options: RunOptions, bind: Any
    ) -> None:
        self.identifier = identifier
        self.options = options
        home, name = (getattr(function, each, None) for each in ("__module__", "__qualname__"))
        self.origin = f"{home}.{name}" if home and name else repr(function)
        self._function = function
        self._bind = bind


class CoroutineTask(_FunctionTask):
    """A coroutine function, awaited in the worker's loop."""

    stops_at_once = True

    def call(self, payload: Any, context: Context) -> Coroutine[Any, Any, Any]:
        """Call the function; the context stays that of the asyncio task in which this is done."""
        args, kwargs = self._bind(payload, context)
        _current.set(context)
        coroutine: Coroutine[Any, Any, Any] = self._function(*args, **kwargs)
        return coroutine


class ThreadTask(_FunctionTask):
    """A function that runs in a thread."""

    def __init__(
        self, identifier: str, function: Callable[..., Any], options: RunOptions, bind: Any,
        threads: Threads,
    ) -> None:  # fmt: skip
        super().__init__(identifier, function, options, bind)
        self._threads = threads

    async def call(self, payload: Any, context: Context) -> Any:
        """Call the function in a thread, and await what it returns if that can be awaited."""
        args, kwargs = self._bind(payload, context)
        token = _current.set(context)
        try:
            inside = copy_context()
            future = self._threads.start(partial(inside.run, self._function, *args, **kwargs))
            try:
                result = await future
            except asyncio.CancelledError:
                if future.cancelled():
                    context.abort.set("the task was cancelled")
                raise
            return await result if inspect.isawaitable(result) else result
        finally:
            _current.reset(token)


class ProcessTask(_FunctionTask):
    """A function that runs in a process."""

    def __init__(
        self, identifier: str, function: Callable[..., Any], options: RunOptions, bind: Any,
        processes: Processes,
    ) -> None:  # fmt: skip
        super().__init__(identifier, function, options, bind)
        self._processes = processes
        self._reference = Reference.of(identifier, function)

    async def call(self, payload: Any, context: Context) -> Any:
        """Call the function in a process."""
        args, kwargs = self._bind(payload, context)
        return await self._processes.call(self.identifier, self._reference, args, kwargs)
