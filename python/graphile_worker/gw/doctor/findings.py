"""The queue that gw doctor examines, and its findings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from graphile_worker.gw.queue import Queue
from graphile_worker.install.packaging.scripts import Scripts

#: Advice says what would be better on many servers; it is not what exit code 3 tells of.
Severity = Literal["problem", "warning", "advice"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits from which something is a finding; shares are of 1, times in seconds."""

    failed_jobs: int = 1000
    failed_share: float = 0.1
    #: The share counts from so many failed jobs on.
    failed_least: int = 100
    overdue: float = 60.0
    queue_names: int = 100_000
    dead_rows: int = 10_000
    #: Bytes of a table or its indexes.
    size: int = 64 * 2**20
    transaction: float = 600.0
    slot_transactions: int = 1_000_000
    sequence_share: float = 0.5
    notify_share: float = 0.1
    clock_skew: float = 5.0


@dataclass(frozen=True)
class Finding:
    """A problem, why it matters, and what to do.

    ``repair`` does so and says what it did; None where that is not safe to do unasked.
    """

    #: Its kind: the name of the check, or of a part of it.
    check: str
    severity: Severity
    what: str
    why: str
    fix: str
    repair: Callable[[Queue], str] | None = None


class SkippedError(Exception):
    """A check could not be made here; the message says why."""


@dataclass(frozen=True)
class Examination:
    """What the checks look at."""

    queue: Queue
    limits: Limits = field(default_factory=Limits)
    #: The time of this machine, in seconds since 1970.
    clock: Callable[[], float] = time.time
    scripts: Scripts = field(default_factory=Scripts)
