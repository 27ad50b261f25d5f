"""Decode payloads into the annotated types of a function's parameters."""

from __future__ import annotations

import inspect
import json
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace, UnionType
from typing import Any, get_args, get_origin

from graphile_worker.errors import InvalidPayload, TasksError
from graphile_worker.worker.context import Context

#: Returns a value decoded; raises InvalidPayload, which says where the value was in the payload.
Decode = Callable[[Any, str], Any]
#: Turns a payload into the arguments of a call.
Binder = Callable[[Any, Context], tuple[tuple[Any, ...], dict[str, Any]]]

#: How many mismatches of one payload are told.
_TOLD = 5
#: Members that producers and schedulers put into a payload, and no function has to know.
_ADDED = ("_trace", "_cron")
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a worker has to know of a parameter."""

    name: str
    kind: Any
    required: bool
    is_context: bool
    #: None: the value is passed as it is.
    decode: Decode | None


def read_parameters(identifier: str, function: Callable[..., Any]) -> list[Parameter]:
    """Return the parameters of a function; raise TasksError for types that cannot be decoded."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise TasksError(f"task {identifier}: {function!r} does not say its parameters") from error
    read = []
    for parameter in signature.parameters.values():
        annotation = _evaluated(identifier, function, parameter)
        is_context = _is_context(annotation)
        read.append(
            Parameter(
                parameter.name,
                parameter.kind,
                parameter.default is inspect.Parameter.empty
                and parameter.kind
                not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD),
                is_context,
                None if is_context else _decoder(identifier, parameter.name, annotation),
            )
        )
    return read


def bind_by_name(identifier: str, parameters: list[Parameter]) -> Binder:
    """Pass the members of an object by name, and anything else to the first parameter."""
    named = {p.name: p for p in parameters if not p.is_context}
    rest = next((p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD), None)
    if rest is not None:
        del named[rest.name]
    required = [name for name, p in named.items() if p.required]
    contexts = [p.name for p in parameters if p.is_context]
    first = next(iter(named.values()), None)

    def bind(payload: Any, context: Context) -> tuple[tuple[Any, ...], dict[str, Any]]:
        arguments: dict[str, Any] = dict.fromkeys(contexts, context)
        if not isinstance(payload, dict):
            if first is None:
                raise InvalidPayload(
                    f"payload is a {_kind(payload)}, but task {identifier} has no parameter"
                )
            others = [name for name in required if name != first.name]
            if others:
                raise InvalidPayload(
                    f"payload is a {_kind(payload)}, which is passed as {first.name!r} alone, but"
                    f" task {identifier} needs {', '.join(others)} too"
                )
            arguments[first.name] = first.decode(payload, "payload") if first.decode else payload
            return (), arguments
        wrong = [
            f"payload.{name}: it is missing, and has no default"
            for name in required
            if name not in payload
        ]
        for name, value in payload.items():
            parameter = named.get(name, rest)
            if name in _ADDED and name not in named and (rest is None or rest.decode):
                continue
            if parameter is None or name in contexts:
                wrong.append(f"payload.{name}: task {identifier} is an unexpected parameter")
            elif parameter.decode is None:
                arguments[name] = value
            else:
                try:
                    arguments[name] = parameter.decode(value, f"payload.{name}")
                except InvalidPayload as error:
                    wrong.append(str(error))
        if wrong:
            raise InvalidPayload(_told(wrong))
        return (), arguments

    return bind


def bind_by_position(identifier: str, parameters: list[Parameter]) -> Binder:
    """Pass the payload as the first parameter and the context as the second, as Node does."""
    places = [p for p in parameters if p.kind in _POSITIONAL]
    starred = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
    plain = [p for p in places if not p.is_context]
    # A second parameter that asks for nothing else is the context, however it is called.
    second = plain[1:2] if len(places) == len(plain) else []
    if second and (not second[0].required or second[0].decode is not None):
        second = []
    by_name = [p.name for p in parameters if p.is_context and p not in places]
    extra = [p.name for p in plain[1:] if p.required and p not in second]
    extra += [p.name for p in parameters if p.required and not (p.is_context or p in places)]
    if extra:
        raise TasksError(
            f"task {identifier}: nothing is there to pass as {', '.join(extra)}: a function takes"
            " (), (payload) or (payload, context)"
        )
    # Places are filled from the left, so what follows a parameter with its default goes by name.
    slots: list[str] = []
    for place in places:
        if place.is_context or place in second:
            slots.append("context")
        elif place is plain[0]:
            slots.append("payload")
        else:
            by_name += [p.name for p in places[len(slots) + 1 :] if p.is_context]
            break
    decode = plain[0].decode if plain else None
    if not places and starred:
        slots = ["payload", "context"]

    if decode is None and not by_name and slots == ["payload", "context"]:
        return lambda payload, context: ((payload, context), {})
    if decode is None and not by_name and slots == ["payload"]:
        return lambda payload, context: ((payload,), {})
    if decode is not None and not by_name and slots == ["payload"]:
        return lambda payload, context: ((decode(payload, "payload"),), {})

    def bind(payload: Any, context: Context) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if decode is not None:
            payload = decode(payload, "payload")
        values = {"payload": payload, "context": context}
        return tuple(values[slot] for slot in slots), dict.fromkeys(by_name, context)

    return bind


def _kind(payload: Any) -> str:
    kinds = {list: "list", str: "text", type(None): "null"}
    return kinds.get(type(payload), type(payload).__name__)


def _told(wrong: list[str]) -> str:
    more = f"; and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
    return "; ".join(wrong[:_TOLD]) + more


# --- annotations


def _evaluated(
    identifier: str, function: Callable[..., Any], parameter: inspect.Parameter
) -> Any:  # fmt: skip
    """Return an annotation, one that is a string as what it stands for.

    One by one: that of the result, which no worker needs, may name what is only imported for the
    type checker.
    """
    annotation = parameter.annotation
    home = inspect.unwrap(getattr(function, "func", function))
    if not hasattr(home, "__globals__"):  # an object that can be called
        home = type(home).__call__
    try:
        return typing.get_type_hints(
            SimpleNamespace(__annotations__={parameter.name: annotation}),
            getattr(home, "__globals__", {}),
            include_extras=True,
        )[parameter.name]
    except NameError as error:
        if str(annotation).removesuffix(" | None").rpartition(".")[2] == "Context":
            return Context
        raise TasksError(
            f"task {identifier}: the annotation of {parameter.name!r} is unknown when it runs"
            f" ({error}): import its type at the top of the module, not below TYPE_CHECKING"
        ) from error
    except Exception as error:
        raise TasksError(
            f"task {identifier}: the annotation of {parameter.name!r} is no type: {error}"
        ) from error


def _is_context(annotation: Any) -> bool:
    if annotation is Context:
        return True
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _is_context(arguments[0])
    return origin in (typing.Union, UnionType) and Context in arguments


def _decoder(identifier: str, name: str, annotation: Any) -> Decode | None:
    if any(annotation is anything for anything in (inspect.Parameter.empty, Any, object)):
        return None
    if annotation in (dict, dict[str, Any]):
        return _decode_object
    if annotation in (list, list[Any]):
        return _decode_list
    try:
        from pydantic import TypeAdapter
    except ImportError as error:
        raise TasksError(
            f"task {identifier}: decoding {name!r} into {_name(annotation)} needs pydantic:"
            " run `pip install 'graphile-worker[worker]'`"
        ) from error
    try:
        adapter = TypeAdapter(_for_pydantic(annotation))
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise TasksError(
            f"task {identifier}: no payload can be decoded into {_name(annotation)}, as {name!r} is"
            f" annotated: {reason}"
        ) from error
    return _pydantic_decoder(adapter)


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _decode_object(value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise InvalidPayload(f"{where}: Input should be an object")
    return value


def _decode_list(value: Any, where: str) -> Any:
    if not isinstance(value, list):
        raise InvalidPayload(f"{where}: Input should be a valid array")
    return value


def _pydantic_decoder(adapter: Any) -> Decode:
    from pydantic import ValidationError

    validate = adapter.validate_python

    def decode(value: Any, where: str) -> Any:
        try:
            return validate(value)
        except ValidationError:
            # Strict types take a text for a time, say, only where JSON says it, as it did; and the
            # words for what is wrong are JSON's.
            try:
                return adapter.validate_json(json.dumps(value))
            except ValidationError as error:
                wrong = [
                    f"{where}{_path(problem['loc'])}: {problem['msg']}"
                    for problem in error.errors(
                        include_url=False, include_context=False, include_input=False
                    )
                ]
        raise InvalidPayload(_told(wrong))

    return decode


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _for_pydantic(annotation: Any, outer: tuple[Any, ...] = ()) -> Any:
    """Return the type with each typing.TypedDict as one that pydantic takes before Python 3.12."""
    if sys.version_info >= (3, 12):
        return annotation
    if typing.is_typeddict(annotation) and annotation not in outer:
        if type(annotation).__module__ != "typing":
            return annotation
        import typing_extensions as extended

        members = {}
        for name, hint in typing.get_type_hints(annotation, include_extras=True).items():
            needed = name in annotation.__required_keys__
            # Where annotations are strings, the class itself did not see these.
            if get_origin(hint) in (typing.Required, typing.NotRequired):
                needed = get_origin(hint) is typing.Required
                (hint,) = get_args(hint)
            hint = _for_pydantic(hint, (*outer, annotation))
            members[name] = extended.Required[hint] if needed else extended.NotRequired[hint]
        make: Any = extended.TypedDict
        made = make(annotation.__name__, members)
        made.__module__, made.__doc__ = annotation.__module__, annotation.__doc__
        config = getattr(annotation, "__pydantic_config__", None)
        if config is not None:
            made.__pydantic_config__ = config
        return made
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return typing.Annotated[(_for_pydantic(arguments[0], outer), *arguments[1:])]
    if not arguments or origin is typing.Literal:
        return annotation
    changed = tuple(_for_pydantic(argument, outer) for argument in arguments)
    if all(new is old for new, old in zip(changed, arguments, strict=True)):
        return annotation
    return (typing.Union if origin is UnionType else origin)[changed]
