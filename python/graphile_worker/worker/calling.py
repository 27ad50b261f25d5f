"""Call a task with a payload: in the loop, in a thread of its own, or in a process of a pool."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from graphile_worker.errors import GraphileWorkerError, InvalidPayload
from graphile_worker.tasks import RunOptions, Task
from graphile_worker.worker.context import Context, _current
from graphile_worker.worker.decoding import Decode, decoder, hints_of

#: Members of a payload that are the worker's own, and dropped where the function has no such name.
_OURS = ("_cron", "_trace")


class Executors:
    """Where functions run that would hold up the loop; nothing is started before it is needed."""

    def __init__(self, *, processes: int | None = None) -> None:
        self._processes = processes
        self._pool: Any = None

    async def in_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call in a thread of its own, which does not hold up the end of the process.

        Cancelled, the thread goes on and nobody waits for it: it has to look at the signal.
        """
        done: Future[Any] = Future()
        in_context = contextvars.copy_context()

        def body() -> None:
            try:
                result = in_context.run(function, *args, **kwargs)
            except BaseException as error:
                if not done.cancelled():
                    done.set_exception(error)
            else:
                if not done.cancelled():
                    done.set_result(result)

        done.set_running_or_notify_cancel()
        threading.Thread(target=body, name=f"task {function.__name__}", daemon=True).start()
        return await asyncio.wrap_future(done)

    async def in_process(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call in a process; cancelled, the process is killed."""
        if self._pool is None:
            try:
                from pebble import ProcessPool
            except ImportError as error:
                raise GraphileWorkerError(
                    "pebble runs tasks in processes: run `pip install 'graphile-worker[worker]'`"
                ) from error
            import multiprocessing

            # Forked, a process would share the connections of this one.
            self._pool = ProcessPool(
                max_workers=self._processes or os.cpu_count() or 1,
                context=multiprocessing.get_context("spawn"),
            )
        future = self._pool.schedule(function, args=args, kwargs=kwargs)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.cancel()
            raise

    async def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.stop()
            await asyncio.to_thread(self._pool.join)


class RunnableTask:
    """A function with the way to call it.

    A payload that is an object becomes the arguments of a registry's task, by name; any other, and
    the payload of a mapping's function, is the first argument. A parameter annotated ``Context``
    gets the context, and so does a second one of a mapping's function.
    """

    def __init__(
        self, identifier: str, function: Callable[..., Any], options: RunOptions,
        executors: Executors, *, by_name: bool,
    ) -> None:  # fmt: skip
        self.identifier, self.options = identifier, options
        self._function, self._by_name = function, by_name
        self._executors = executors
        parameters = inspect.signature(function).parameters
        hints = hints_of(function)
        self._context_name = next((n for n, hint in hints.items() if hint is Context), None)
        names = [name for name in parameters if name != self._context_name]
        self._parameters = {name: parameters[name] for name in names}
        self._takes_any = any(p.kind is p.VAR_KEYWORD for p in self._parameters.values())
        self._decoders: dict[str, Decode | None] = {
            name: decoder(hints.get(name, Any)) for name in names
        }
        self._first = next(iter(names), None)
        self._second = names[1] if len(names) > 1 and not by_name else None
        self._is_async = inspect.iscoroutinefunction(function)

    def _arguments(self, payload: Any, context: Context) -> dict[str, Any]:
        if self._by_name and isinstance(payload, dict):
            arguments = self._named(payload)
        elif self._first is None:
            arguments = {}
        else:
            arguments = {self._first: self._decoded(self._first, payload, "payload")}
        if self._context_name is not None:
            arguments[self._context_name] = context
        elif self._second is not None:
            arguments[self._second] = context
        return arguments

    def _named(self, payload: dict[str, Any]) -> dict[str, Any]:
        arguments = {}
        for name, value in payload.items():
            if name in self._parameters or self._takes_any:
                arguments[name] = self._decoded(name, value, f"payload.{name}")
            elif name not in _OURS:
                raise InvalidPayload(
                    f"payload.{name}: task {self.identifier} has no such parameter; it has"
                    f" {', '.join(self._parameters) or 'none'}"
                )
        for name, parameter in self._parameters.items():
            needed = parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL,
            )  # fmt: skip
            if needed and name not in arguments:
                raise InvalidPayload(f"payload.{name}: it is missing, and has no default")
        return arguments

    def _decoded(self, name: str, value: Any, path: str) -> Any:
        decode = self._decoders.get(name)
        return value if decode is None else decode(value, path)

    async def call(self, payload: Any, context: Context) -> Any:
        """Call the function; raise InvalidPayload, which names the field that does not fit."""
        arguments = self._arguments(payload, context)
        token = _current.set(context)
        try:
            if self._is_async:
                return await self._function(**arguments)
            if self.options.executor == "process":
                return await self._executors.in_process(self._function, **arguments)
            result = await self._executors.in_thread(self._function, **arguments)
            return await result if inspect.iscoroutine(result) else result
        finally:
            _current.reset(token)


def runnable(identifier: str, task: Any, executors: Executors) -> RunnableTask:
    """Return a task that can be called, of a registry's task or a function."""
    if isinstance(task, Task):
        return RunnableTask(identifier, task.function, task.run, executors, by_name=True)
    return RunnableTask(identifier, task, RunOptions(), executors, by_name=False)
