"""Run functions in processes of their own, which can be killed."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import hashlib
import importlib
import importlib.util
import multiprocessing
import operator
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from graphile_worker.errors import TaskCrashed, TasksError
from graphile_worker.log import shown
from graphile_worker.worker.executors.thread import Threads

_PRIVATE = "_graphile_worker_task_"
# A fork would copy the locks of the worker's threads as they happen to be.
_SPAWN = multiprocessing.get_context("spawn")
#: Seconds that a killed process has until no one waits for it any more.
_CLOSE_SECONDS = 5.0


def load_file(path: Path, *, again: bool = False) -> ModuleType:
    """Import a Python file under a name of its own, the same in each process."""
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]
    name = f"{_PRIVATE}{digest}_{path.stem}"
    if name in sys.modules and not again:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look their module up by its name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@dataclass(frozen=True, slots=True)
class Reference:
    """Where another process finds a function."""

    module: str
    qualname: str
    #: The file of a module that no import finds.
    path: str | None

    @classmethod
    def of(cls, identifier: str, function: Callable[..., Any]) -> Reference:
        """Return a function's reference; raise TasksError where it would lead to no function."""
        module = getattr(function, "__module__", None) or ""
        path = getattr(sys.modules.get(module), "__file__", None)
        made = cls(
            module,
            getattr(function, "__qualname__", ""),
            path if module.startswith(_PRIVATE) else None,
        )
        try:
            found = made._walk(sys.modules[module])
        except (KeyError, AttributeError):
            found = None
        if found is not function:
            raise TasksError(
                f"task {identifier}: a process cannot import {function!r}: define it at the top of"
                " a module, under its own name, or use executor='thread'"
            )
        return made

    def find(self) -> Callable[..., Any]:
        """Import the module and return the function."""
        if self.path is None:
            module = importlib.import_module(self.module)
        else:
            module = load_file(Path(self.path))
        return self._walk(module)

    def _walk(self, module: ModuleType) -> Callable[..., Any]:
        from graphile_worker.client.tasks import Task

        found: Any = operator.attrgetter(self.qualname)(module)
        return found.function if isinstance(found, Task) else found


class Processes:
    """At most ``most`` processes, one function at a time each; None: one for each core.

    They are started when they are needed, and kept. ``close`` kills them.
    """

    def __init__(self, threads: Threads, most: int | None) -> None:
        self._threads = threads
        self._room = asyncio.Semaphore(most or os.cpu_count() or 1)
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()

    async def call(
        self, identifier: str, reference: Reference, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call the function and return what it returns, or raise what it raises.

        Raise TaskCrashed if the process ends. When cancelled, kill the process with
        all that it started, and be cancelled when it is dead.
        """
        # Arguments may be of a class in the function's file, which is loaded first.
        request = pickle.dumps((reference, pickle.dumps((args, kwargs))))
        async with self._room:
            process = self._fetch()
            answered = self._threads.start(lambda: process.ask(request))
            try:
                answer = await asyncio.shield(answered)
            except asyncio.CancelledError:
                process.kill()
                await asyncio.wait({answered}, timeout=_CLOSE_SECONDS)
                if answered.done():
                    answered.exception()
                raise
            except EOFError:
                raise TaskCrashed(
                    f"the process of task {identifier} {ending(process.exitcode)}"
                ) from None
            finally:
                if process.works:
                    self._idle.append(process)
                else:
                    self._all.discard(process)
        result = pickle.loads(answer)
        if isinstance(result, _Thrown):
            raise result.error()
        if isinstance(result, list):
            return [part.error() if isinstance(part, _Thrown) else part for part in result]
        return result

    def _fetch(self) -> _Process:
        while self._idle:
            process = self._idle.pop()
            if process.works:
                return process
            self._all.discard(process)
        if not self._all:
            # Before multiprocessing's own, which waits for processes.
            atexit.register(self.close)
        process = _Process()
        self._all.add(process)
        return process

    def close(self) -> None:
        """Kill all processes."""
        atexit.unregister(self.close)
        for process in self._all:
            process.kill()
        for process in self._all:
            process.join()
        self._all.clear()
        self._idle.clear()


class _Process:
    """A process that serves requests, one at a time; the first one starts it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._killed = False
        self._process: Any = None
        self._connection: Connection | None = None

    def ask(self, request: bytes) -> bytes:
        """Send a request and wait for the answer; raise EOFError where the process ends."""
        with self._lock:
            if self._killed:
                raise EOFError
            if self._connection is None:
                self._connection, theirs = _SPAWN.Pipe()
                self._process = _SPAWN.Process(
                    target=_serve, args=(theirs,), name="graphile_worker"
                )
                self._process.start()
                theirs.close()
        try:
            self._connection.send_bytes(request)
            return self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            self._connection.close()
            self._process.join()
            self._killed = True
            raise EOFError from error

    @property
    def works(self) -> bool:
        """Whether it can run another function."""
        return not self._killed and self._process is not None and self._process.is_alive()

    @property
    def exitcode(self) -> int | None:
        """How it ended."""
        return None if self._process is None else self._process.exitcode

    def kill(self) -> None:
        """Kill it, and what it started."""
        with self._lock:
            self._killed = True
            if self._process is None or self._process.exitcode is not None:
                return
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has no group yet, or is gone
                self._process.kill()

    def join(self) -> None:
        """Wait a moment until it is dead."""
        if self._process is not None:
            self._process.join(1)


def ending(code: int | None) -> str:
    """Return in words how a process ended."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


# --- in the process


def _serve(connection: Connection) -> None:
    """Answer requests until the worker closes its end, or is gone."""
    # A group of its own: to be killed as a whole, and out of the terminal's reach.
    os.setsid()
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send_bytes(_answer(connection.recv_bytes()))


def _answer(request: bytes) -> bytes:
    try:
        reference, arguments = pickle.loads(request)
        function = reference.find()
        args, kwargs = pickle.loads(arguments)
        result = function(*args, **kwargs)
    except BaseException as error:
        return pickle.dumps(_Thrown.of(error))
    if isinstance(result, list | tuple):
        result = [_Thrown.of(part) if isinstance(part, Exception) else part for part in result]
    try:
        return pickle.dumps(result)
    except Exception as error:
        if isinstance(result, list):
            return pickle.dumps(_Thrown.of(error))
        return pickle.dumps(None)  # no one needs it


@dataclass(frozen=True, slots=True)
class _Thrown:
    """An exception on its way to another process."""

    pickled: bytes | None
    text: str
    trace: str

    @classmethod
    def of(cls, error: BaseException) -> _Thrown:
        text = shown(error)
        try:
            trace = "".join(traceback.format_exception(error))
        except BaseException:  # of the exception's own methods
            trace = text
        # As it is where that works; many a class is not made again from its args.
        for make in (lambda: error, lambda: _Bare(type(error), error.args, error.__dict__)):
            try:
                pickled = pickle.dumps(make())
                copy = pickle.loads(pickled)
                if str(copy.error() if isinstance(copy, _Bare) else copy) == str(error):
                    return cls(pickled, text, trace)
            except BaseException:
                continue
        return cls(None, text, trace)

    def error(self) -> BaseException:
        """Return the exception again, with the traceback of its process as a note."""
        try:
            error = pickle.loads(self.pickled) if self.pickled else RuntimeError(self.text)
        except BaseException:
            error = RuntimeError(self.text)
        if isinstance(error, _Bare):
            error = error.error()
        if not isinstance(error, Exception):
            error = TaskCrashed(f"the task raised {self.text}")
        error.add_note(f"In its process:\n{self.trace}")
        return error


@dataclass(frozen=True, slots=True)
class _Bare:
    """What makes an exception without its __init__."""

    kind: type[BaseException]
    args: tuple[Any, ...]
    state: dict[str, Any]

    def error(self) -> BaseException:
        error = self.kind.__new__(self.kind, *self.args)
        error.__dict__.update(self.state)
        return error
