"""Turn a decoded JSON value into what a function's annotation says."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from graphile_worker.errors import GraphileWorkerError, InvalidPayload

Decode = Callable[[Any, str], Any]
_PLAIN = (Any, object, dict, list, inspect.Parameter.empty)


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a function, as types."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        raise GraphileWorkerError(
            f"the annotations of {function.__qualname__} cannot be read: {error}"
        ) from error


def decoder(annotation: Any) -> Decode | None:
    """Return what checks and converts a value, or None where the annotation asks for nothing.

    It takes the value and its path, and raises InvalidPayload, which names the field.
    """
    if annotation in _PLAIN:
        return None
    try:
        from pydantic import TypeAdapter, ValidationError
    except ImportError as error:
        raise GraphileWorkerError(
            f"pydantic decodes {annotation!r}: run `pip install 'graphile-worker[worker]'`"
        ) from error
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)

    def decode(value: Any, path: str) -> Any:
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            faults = [
                f"{path}{''.join(_step(part) for part in fault['loc'])}: {fault['msg']}"
                for fault in error.errors(include_url=False, include_input=False)
            ]
            raise InvalidPayload("; ".join(faults)) from error

    return decode


def _step(part: int | str) -> str:
    return f"[{part}]" if isinstance(part, int) else f".{part}"
