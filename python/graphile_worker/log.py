"""The worker's log, which nothing that a program's logging or a task's exception does can stop."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[Any]
else:
    _Adapter = logging.LoggerAdapter


class SafeLogger(_Adapter):
    """Logs, whatever the handlers and filters of the program raise."""

    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:
        """Log, or do nothing."""
        with suppress(BaseException):
            super().log(level, msg, *args, stacklevel=2, **options)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Leave the call's own extra fields as they are."""
        return msg, kwargs


logger = SafeLogger(logging.getLogger("graphile_worker"), None)


def shown(error: BaseException) -> str:
    """Return the class and message of an exception, whatever its methods do."""
    try:
        name = str(type(error).__name__)
        text = str(error)
        return f"{name}: {text}" if text else name
    except BaseException:
        return f"{type.__repr__(type(error))}, which cannot be printed"


def represented(error: BaseException) -> str:
    """Return what repr says of an exception, whatever its methods do."""
    try:
        return repr(error)
    except BaseException:
        return shown(error)
