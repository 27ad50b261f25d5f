"""Derive the JSON Schema of a task's payload from the annotations of its function."""

from __future__ import annotations

import inspect
from typing import Any

from graphile_worker.client.tasks import Task
from graphile_worker.errors import TasksError
from graphile_worker.worker.executors.arguments import _evaluated, _for_pydantic, _is_context, _name

_UNTYPED = (inspect.Parameter.empty, Any, object)


def payload_schema(identifier: str, function: Any) -> dict[str, Any] | None:
    """Return the schema of a task's payload, or None where its function says nothing of it.

    A Task takes an object with a member for each parameter; a plain function its payload as the
    first one. Raise TasksError for a type that has no schema.
    """
    is_task = isinstance(function, Task)
    bare = function.function if is_task else function
    parameters = [
        (parameter, annotation)
        for parameter in inspect.signature(bare).parameters.values()
        if not _is_context(annotation := _evaluated(identifier, bare, parameter))
    ]
    if not is_task:
        if not parameters or _untyped(parameters[0][1]):
            return None
        return _of_element(_schema_of(identifier, *parameters[0]))
    schema: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    definitions: dict[str, Any] = {}
    required = []
    for parameter, annotation in parameters:
        part = {} if _untyped(annotation) else _schema_of(identifier, parameter, annotation)
        definitions |= part.pop("$defs", {})
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            schema["additionalProperties"] = part or True
            continue
        schema["properties"][parameter.name] = part
        if parameter.default is inspect.Parameter.empty:
            required.append(parameter.name)
    if required:
        schema["required"] = sorted(required)
    if definitions:
        schema["$defs"] = definitions
    return schema


def _of_element(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema of each element of a batch: so is a payload checked that is an array."""
    if schema.get("type") != "array":
        return schema
    if "prefixItems" in schema:
        return None
    items: dict[str, Any] = dict(schema.get("items", {}))
    return {**items, "$defs": schema["$defs"]} if "$defs" in schema else items


def _untyped(annotation: Any) -> bool:
    return any(annotation is anything for anything in _UNTYPED)


def _schema_of(identifier: str, parameter: inspect.Parameter, annotation: Any) -> dict[str, Any]:
    try:
        from pydantic import TypeAdapter
    except ImportError as error:
        raise TasksError(
            "deriving schemas needs pydantic: run `pip install 'graphile-worker[worker]'`"
        ) from error
    try:
        found: dict[str, Any] = TypeAdapter(_for_pydantic(annotation)).json_schema()
    except Exception as error:
        raise TasksError(
            f"task {identifier}: {_name(annotation)}, as {parameter.name!r} is annotated, has no"
            f" JSON Schema: {str(error).splitlines()[0]}"
        ) from error
    return found


def broken_by(old: dict[str, Any] | None, new: dict[str, Any]) -> list[str]:
    """Return which producers would be refused that fit before, as far as names tell."""
    before = old or {}
    known, wanted = before.get("properties", {}), new.get("properties", {})
    told = [
        f"those that leave out {name!r}"
        for name in new.get("required", [])
        if name not in before.get("required", [])
    ]
    if new.get("additionalProperties") is False:
        told += [f"those that pass {name!r}" for name in known if name not in wanted]
        if before.get("additionalProperties", True) is not False:
            told.append(f"those that pass anything but {', '.join(sorted(wanted)) or 'nothing'}")
    told += [
        f"those whose {name!r} was of another type"
        for name in wanted
        if name in known and known[name] != wanted[name]
    ]
    return told
