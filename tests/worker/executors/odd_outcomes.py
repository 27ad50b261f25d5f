"""Every odd way in which a task can end; importable by other processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

from graphile_worker import Tasks
from graphile_worker.worker import RetryAfter, Snooze

tasks = Tasks()


class UnprintableError(Exception):
    def __str__(self) -> NoReturn:
        raise RuntimeError("no text")

    __repr__ = __str__


class _NumberedError(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


class _ExitingError(Exception):
    def __str__(self) -> NoReturn:
        raise SystemExit(3)


class _LyingError(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> NoReturn:  # type: ignore[override]
        raise RuntimeError("no class")


class _Meta(type):
    @property
    def __name__(cls) -> NoReturn:  # type: ignore[override]
        raise RuntimeError("no name")


class _NamelessError(Exception, metaclass=_Meta):
    pass


class _BadRetry(RetryAfter):
    def __init__(self) -> None:
        super().__init__(1)
        self.when = "tomorrow"  # type: ignore[assignment]


class _BadSnooze(Snooze):
    def __init__(self) -> None:
        super().__init__(1)

    @property
    def when(self) -> NoReturn:
        raise RuntimeError("no time")

    @when.setter
    def when(self, value: object) -> None: ...


def _noted(notes: object) -> Exception:
    error = ValueError("noted")
    vars(error)["__notes__"] = notes
    return error


def _deep() -> Exception:
    error: Exception = ValueError("deepest")
    for _ in range(5000):
        outer = ValueError("x")
        outer.__cause__ = error
        error = outer
    return error


class _OddList(list[Any]):
    def __len__(self) -> NoReturn:
        raise RuntimeError("no length")


RAISED: dict[str, Callable[[], BaseException]] = {
    "unprintable": UnprintableError, "numbered": _NumberedError, "exiting": _ExitingError, "lying": _LyingError,
    "nameless": _NamelessError, "bad retry": _BadRetry, "bad snooze": _BadSnooze,
    "notes 5": lambda: _noted(5), "notes of unprintables": lambda: _noted([UnprintableError()]),
    "deep": _deep, "nul": lambda: ValueError("\0 \ud800"), "long": lambda: ValueError("x" * 10**7),
    "exit": lambda: SystemExit(UnprintableError()), "interrupt": KeyboardInterrupt,
    "generator": GeneratorExit, "stop": StopIteration, "cancelled": asyncio.CancelledError,
    "base": lambda: BaseException("base"), "group": lambda: ExceptionGroup("g", [UnprintableError()]),
    "memory": MemoryError, "recursion": RecursionError,
}  # fmt: skip
RETURNED: dict[str, Any] = {
    "odd list": _OddList([1, 2]), "list of odd": [UnprintableError(), SystemExit(1)],
    "list of exceptions": [_NumberedError(), ValueError("x")], "class": _NamelessError, "nan": float("nan"),
    "short": [1], "tuple": (1, ValueError("second")),
}  # fmt: skip


def outcome(name: str) -> Any:
    """End so."""
    if name in RAISED:
        raise RAISED[name]()
    return RETURNED[name]


@tasks.task("task", executor="process")
def in_process(name: str) -> Any:
    return outcome(name)
