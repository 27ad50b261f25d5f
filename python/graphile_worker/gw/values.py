"""Read the values of flags; show times and texts of the database."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import datetime, timedelta

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def duration(text: str) -> timedelta:
    """Read a duration, such as 90s, 1h30m or 2d."""
    if not re.fullmatch(r"([0-9]+(\.[0-9]+)?[smhdw])+", text):
        raise ArgumentTypeError(
            f"{text!r} is not a duration: use numbers with s, m, h, d or w, such as 90s or 1h30m"
        )
    parts = re.findall(r"([0-9.]+)([smhdw])", text)
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
    except OverflowError as error:
        raise ArgumentTypeError(f"{text!r} is too long") from error


def moment(text: str) -> datetime | timedelta:
    """Read a moment: now, a duration from now, or a time with its offset from UTC."""
    if text == "now":
        return timedelta()
    if re.fullmatch(r"\+?[0-9.]+[smhdw].*", text):
        return duration(text.removeprefix("+"))
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(
            f"{text!r} is not a time: use now, a duration such as 10m, or 2030-01-31T08:00:00+01:00"
        ) from error
    if found.utcoffset() is None:
        raise ArgumentTypeError(
            f"{text!r} has no time zone, so each machine would take it for another moment:"
            " put Z (UTC) or an offset such as +01:00"
        )
    return found


def seconds(text: str) -> float:
    """Read a number of seconds, more than none."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found <= 2_000_000:
        raise ArgumentTypeError(
            f"{text!r} is not a positive number of seconds: use for example 30 or 0.5"
        )
    return found


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number of a range."""

    def read(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,19}", text) or not least <= int(text) <= most:
            raise ArgumentTypeError(f"{text!r} is out of range: use {least} to {most}")
        return int(text)

    return read


def job_id(text: str) -> int:
    """Read the id of a job."""
    if not re.fullmatch(r"[0-9]{1,19}", text) or not 0 < int(text) < 2**63:
        raise ArgumentTypeError(f"{text!r} is not a job id: use an id that `gw jobs` shows")
    return int(text)


def plain(value: object) -> str:
    """Return a text of the database without what would move a terminal's cursor."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def short(value: str | None, most: int = 60) -> str:
    """Return the first line of a text, cut."""
    first = (value or "").strip().partition("\n")[0]
    return first if len(first) <= most else first[: most - 1] + "…"


def many(count: int, what: str) -> str:
    """Return a number of things, as people say it."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def span(length: timedelta | float) -> str:
    """Return a duration for people, two units at most."""
    left = round(length.total_seconds() if isinstance(length, timedelta) else length)
    if left < 1:
        return "0 s"
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def since(then: datetime | None, now: datetime) -> str:
    """Return how long ago a moment was, or how far ahead it is."""
    if then is None:
        return ""
    return f"in {span(then - now)}" if then > now else f"{span(now - then)} ago"
