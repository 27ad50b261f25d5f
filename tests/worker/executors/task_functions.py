"""Functions that the tests of calling and decoding run as tasks, in other processes too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Required, TypedDict
from uuid import UUID

from graphile_worker import Tasks
from graphile_worker.retry import Snooze
from graphile_worker.worker.context import Context
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from fractions import Fraction  # of a result, which no worker has to know

tasks = Tasks()


@dataclass
class Email:
    to: str
    sent_at: datetime | None = None


class Price(TypedDict):
    amount: Decimal


class Row(TypedDict, total=False):
    id: Required[UUID]
    prices: list[Price] | None


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: datetime
    kind: Literal["a", "b"] = "a"


@tasks.task("send")
def send(
    to: str, at: datetime | None = None, *, email: Email | None = None, plain: Any = None
) -> tuple[Any, ...]:
    return to, at, email, plain


@tasks.task("digest")
def digest(emails: list[Email], urgent: bool = False) -> Fraction | Any:
    return emails


@tasks.task("rest")
def rest(n: Annotated[int, Field(ge=1)] = 1, context: Context | None = None, **more: Any) -> Any:
    return n, more, context and context.job.id


@tasks.task("typed_rest")
def typed_rest(**more: int) -> dict[str, int]:
    return more


@tasks.task("rows")
def rows(row: Row, other: tuple[Row, ...] | None = None) -> Any:
    return row


@tasks.task("process_id", executor="process")
def process_id(email: Email | None = None) -> tuple[int, Any]:
    return os.getpid(), email


@tasks.task("raises", executor="process")
def raises(how: str) -> Any:
    if how == "snooze":
        raise Snooze(5, "later")
    if how == "odd":
        raise Odd(1, 2)
    if how == "exit":
        sys.exit(3)
    if how == "local":

        class Local(Exception):  # noqa: N818
            pass

        raise Local("hidden")
    if how == "batch":
        return [1, Odd(1, 2), "x"]
    if how == "thread":
        return lambda: None  # which no process can send
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(0)


class Odd(Exception):  # noqa: N818
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.a = a


@tasks.task("stuck", executor="process")
def stuck(file: str) -> None:
    child = subprocess.Popen(["sleep", "600"])
    made = Path(f"{file}.new")
    made.write_text(f"{os.getpid()} {child.pid}")
    made.rename(file)
    time.sleep(600)
