"""Items of a crontab, and the ticks of one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from graphile_worker.crontab import (
    CronItem,
    parse_crontab,
)

LONDON, NEW_YORK, LORD_HOWE = "Europe/London", "America/New_York", "Australia/Lord_Howe"


def only(text: str) -> CronItem:
    (item,) = parse_crontab(text)
    return item


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def shown(item: CronItem, after: str, until: str, **options: Any) -> list[str]:
    """Return the ticks, as a clock on the wall in UTC shows them."""
    return [at.strftime("%d %H:%M") for at in item.ticks(utc(after), utc(until), **options)]


def fields(draw: Any) -> str:
    """Return the five fields of a schedule."""

    def field(low: int, high: int) -> str:
        def part() -> str:
            kind = draw(0, 5)
            if kind == 0:
                return "*"
            if kind == 1:
                return f"*/{draw(1, high + 2)}"
            first = draw(low, high)
            return f"{first}-{draw(first + 1, high)}" if kind == 2 and first < high else str(first)

        return "*" if draw(0, 2) == 0 else ",".join(part() for _ in range(draw(1, 3)))

    return " ".join(field(*ends) for ends in ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7)))
