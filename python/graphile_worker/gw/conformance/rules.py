"""The numbered rules of docs/protocol.md, and which checks there are of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphile_worker.gw.conformance.stage import Stage

#: A few words for each rule.
RULES = {
    1: "an id of its own",
    2: "heartbeats, also while jobs run",
    3: "a new id after it was presumed dead",
    4: "jobs that it does not know of go back",
    5: "only its own tasks",
    6: "no job starts before its claim has committed",
    7: "it fetches again when there is more",
    8: "claimed jobs run or go back",
    9: "notifications are hints",
    10: "success completes the job",
    11: "failure keeps the error, and retries",
    12: "late results do not count",
    13: "a call that was not answered is repeated",
    14: "a locked row is tried again",
    15: "failed elements of a batch run again",
    16: "cancelled and paused jobs",
    17: "one job of a queue at a time",
    18: "limits hold",
    19: "it stops when it is asked",
    20: "it ends its id",
    21: "it frees the jobs of dead workers",
}


@dataclass(frozen=True)
class Check:
    """A check of one or several rules."""

    name: str
    rules: tuple[int, ...]
    run: Callable[[Stage], None]
    #: Whether it stops the server, and so needs one of its own.
    own_server: bool


CHECKS: list[Check] = []


def checks(
    *rules: int, own_server: bool = False
) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Make a function the check of some rules."""

    def register(function: Callable[[Stage], None]) -> Callable[[Stage], None]:
        name = function.__name__.replace("_", " ")
        CHECKS.append(Check(name, rules, function, own_server))
        return function

    return register
