"""The table of effects that tasks in transactions write to, and a watch on their connections."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from graphile_worker.worker.executors import transaction
from support.live import work_role
from support.pg import Database


@pytest.fixture
def effects(db: Database) -> Iterator[None]:
    db.rows("create table public.effects (job bigint, what text)")
    db.rows(f"grant all on public.effects to {work_role(db)}")
    yield
    db.rows("drop table public.effects")


@pytest.fixture
def in_threads_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A connection lent to a thread never makes the worker's event loop wait for the server."""
    wait, cancel = transaction.TaskConnection.wait, transaction.TaskConnection.cancel_safe
    in_loops = list[str]()

    def watched(self: transaction.TaskConnection, *args: Any, **kwargs: Any) -> Any:
        if asyncio._get_running_loop() is not None:
            in_loops.append("".join(traceback.format_stack(limit=12)))
        return wait(self, *args, **kwargs)

    def slow(self: transaction.TaskConnection, *args: Any, **kwargs: Any) -> None:
        time.sleep(0.2)
        cancel(self, *args, **kwargs)

    monkeypatch.setattr(transaction.TaskConnection, "wait", watched)
    monkeypatch.setattr(transaction.TaskConnection, "cancel_safe", slow)
    yield
    assert not in_loops, in_loops[0]
