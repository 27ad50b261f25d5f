"""Recurring jobs: Node's crontab format, and the times at which its items are due."""

from graphile_worker.crontab.item import MINUTE, CronItem
from graphile_worker.crontab.parsing import (
    check_identifiers,
    check_payload,
    cron_item,
    parse_crontab,
)

__all__ = [
    "MINUTE", "CronItem", "check_identifiers", "check_payload", "cron_item", "parse_crontab",
]  # fmt: skip
