"""What an action of the dashboard is made of."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphile_worker.errors import InvalidArgument
from graphile_worker.gw.queue import Queue

Values = Mapping[str, str]
Says = Callable[[Queue, dict[str, str]], str]


@dataclass(frozen=True)
class Field:
    """What is asked for: its name and label, and whether there has to be something."""

    name: str
    label: str
    hint: str = ""
    required: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class Action:
    """Something that can be done to a queue.

    ``names`` come with the link, ``fields`` are asked for; ``says`` tells what will happen, ``do``
    does it and tells what happened.
    """

    title: str
    button: str
    names: tuple[str, ...]
    says: Says
    do: Callable[[Queue, Values], str]
    fields: tuple[Field, ...] = ()
    is_danger: bool = False


def read(values: Values, name: str, reader: Callable[[str], Any], default: Any = None) -> Any:
    """Return what a field says; raise InvalidArgument if it cannot be read."""
    given = values.get(name, "").strip()
    if not given:
        return default
    try:
        return reader(given)
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise InvalidArgument(f"{name.replace('_', ' ')}: {error}; nothing was changed") from error


def text(values: Values, name: str) -> str | None:
    """Return the text of a field; None if it is empty."""
    return values.get(name, "").strip() or None


def says(text: str) -> Says:
    """Return what says always the same."""
    return lambda queue, values: text
