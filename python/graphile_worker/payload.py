"""Turn a payload into JSON text, and say where it holds what JSON or PostgreSQL cannot."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from graphile_worker.errors import InvalidPayload

#: A hook that turns a payload into JSON text: ``json.dumps``, ``orjson.dumps`` or your own.
Dumps = Callable[[Any], str | bytes]

# The escape of a NUL character, not that of a backslash with u0000 after it.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def _plain(value: Any) -> Any:
    """Return what stands for a value that JSON does not know, one level deep."""
    dump = getattr(value, "model_dump", None)  # pydantic's
    if dump is not None:
        return dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal) and not value.is_finite():
        raise ValueError("it is not a finite number")
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return list(value)
    raise TypeError(
        f"{type(value).__name__} is nothing that JSON knows: convert it, or pass your own dumps"
    )


_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
).encode


def to_json(payload: Any, dumps: Dumps | None = None, *, trace: bool = False) -> str | None:
    """Return the payload as JSON text, None for None.

    Dataclasses and pydantic models become objects, datetimes ISO 8601, UUIDs and Decimals text,
    enums their values. Raise InvalidPayload, which says where in the payload, for a NUL character,
    NaN, half of a surrogate pair, and what JSON does not know.
    """
    if payload is None and not trace:
        return None
    try:
        text = (dumps or _encode)({} if payload is None else payload)
        if isinstance(text, bytes):
            text = text.decode()
        if not text.isascii():
            text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        where, why = _culprit(payload) or ("payload", _reason(error))
        raise InvalidPayload(f"{where} cannot be sent as JSON: {why}") from error
    if "\\u0000" in text and _NUL.search(text):
        where, _ = _culprit(payload) or ("payload", "")
        raise InvalidPayload(
            f"{where} holds a NUL character, which PostgreSQL cannot store: remove it"
        )
    return _traced(text) if trace else text


def to_json_array(payloads: list[Any]) -> str | None:
    """Return many payloads as one JSON array, or None where one of them cannot be sent."""
    try:
        text = _encode([{} if payload is None else payload for payload in payloads])
        if not text.isascii():
            text.encode()
    except (TypeError, ValueError, RecursionError):
        return None
    return None if "\\u0000" in text and _NUL.search(text) else text


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _culprit(value: Any, path: str = "payload", depth: int = 0) -> tuple[str, str] | None:
    """Return the path of the first part that cannot be sent, and why."""
    if depth > 100:
        return path, "it is nested too deeply, or in itself"
    if isinstance(value, str):
        if "\0" in value:
            return path, "it holds a NUL character"
        try:
            value.encode()
        except UnicodeEncodeError:
            return path, "it holds half of a surrogate pair"
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else (path, f"JSON has no {value}: use None")
    if value is None or isinstance(value, int):
        return None
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str | int | float | None):
                return path, f"its key {key!r} is of type {type(key).__name__}: use str"
            found = _culprit(key, f"{path} key {key!r}", depth + 1)
            found = found or _culprit(part, f"{path}.{key}", depth + 1)
            if found:
                return found
        return None
    if isinstance(value, list | tuple):
        parts = (_culprit(part, f"{path}[{n}]", depth + 1) for n, part in enumerate(value))
        return next(filter(None, parts), None)
    try:
        return _culprit(_plain(value), path, depth + 1)
    except (TypeError, ValueError) as error:
        return path, str(error)


def _traced(text: str) -> str:
    """Put the OpenTelemetry context of the caller into an object, as its member _trace."""
    try:
        from opentelemetry.propagate import inject
    except ImportError as error:
        raise InvalidPayload(
            "trace is asked for, but OpenTelemetry is not installed:"
            " run `pip install 'graphile-worker[otel]'`"
        ) from error
    if not text.startswith("{"):
        raise InvalidPayload("trace needs a payload that is an object, to put _trace into")
    carrier: dict[str, str] = {}
    inject(carrier)
    if not carrier:
        return text
    rest = text[1:].lstrip()
    return f'{{"_trace":{json.dumps(carrier)}{"" if rest == "}" else ","}{rest}'
