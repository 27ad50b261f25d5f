"""What of payloads and results is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

#: Takes the task and its payload or result; returns what is shown.
Redact = Callable[[str, Any], Any]

HIDDEN = "•••"
#: Names of keys whose values are hidden unless others are given.
HIDE = (
    "*password*", "*passwd*", "*secret*", "*token*", "*api_key*", "*apikey*", "authorization",
    "*credential*", "*private_key*",
)  # fmt: skip


class Redaction:
    """Hides the values of some keys, and what a hook hides.

    ``hide`` are patterns with asterisks, compared without regard to case with a key's name, and
    with its path such as ``user.card.number``. ``hook`` sees the value first; if it raises an
    error, nothing of the value is shown.
    """

    def __init__(self, hide: Sequence[str] = HIDE, hook: Redact | None = None) -> None:
        self._patterns = [pattern.lower() for pattern in hide]
        self._hook = hook

    def shown(self, task: str, value: Any) -> Any:
        """Return what is shown of a payload or result of a task."""
        if self._hook is not None:
            try:
                value = self._hook(task, value)
            except Exception as error:
                return f"{HIDDEN} (the redact hook raised {type(error).__name__})"
        return self._without(value, ())

    def _without(self, value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [self._without(each, path) for each in value]
        if not isinstance(value, dict):
            return value
        return {
            key: HIDDEN if self._hides((*path, key)) else self._without(each, (*path, key))
            for key, each in value.items()
        }

    def _hides(self, path: tuple[str, ...]) -> bool:
        names = (path[-1].lower(), ".".join(path).lower())
        return any(fnmatchcase(name, pattern) for pattern in self._patterns for name in names)
