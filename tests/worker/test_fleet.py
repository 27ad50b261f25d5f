"""A fleet of idle workers: how many poll for one job, and that no job is left lying."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from graphile_worker.worker import Worker
from graphile_worker.worker import fetcher as fetching
from graphile_worker.worker.database.protocol import Protocol
from graphile_worker.worker.database.statements import Fetched
from graphile_worker.worker.database.waking import Waking
from support.live import running
from support.pg import Database, wait_for

ADD = "select graphile_worker.add_job(%s, json_build_object('n', %s::int))"
#: Seconds from the commit to the start; a worker that is not woken looks after ten.
SOON = 5.0
SIZE = 8


@pytest.fixture
def polls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The polls of all workers, which poll only if they are woken: how many jobs each brought."""
    monkeypatch.setattr(fetching, "FIRST_POLL", 60.0)
    monkeypatch.setattr(fetching, "BUSY_AFTER", 60.0)
    found: list[int] = []
    fetch = Protocol.fetch

    async def counted(*arguments: Any) -> Fetched:
        fetched = await fetch(*arguments)
        found.append(len(fetched.rows))
        return fetched

    monkeypatch.setattr(Protocol, "fetch", counted)
    return found


@contextmanager
def fleet(db: Database, tasks: list[dict[str, Any]], **options: Any) -> Iterator[list[Worker]]:
    with ExitStack() as stack:
        workers = [
            stack.enter_context(running(each, db, poll_interval=120, **options)) for each in tasks
        ]
        for worker in workers:
            wait_for(lambda: worker.health().listening, "it listens")  # noqa: B023
        for worker in workers:  # each knows how many there are
            worker._loop.call_soon_threadsafe(worker._lease._soon.set)
        wait_for(
            lambda: all(worker._lease.fellows > 3 for worker in workers), "they know each other"
        )
        yield workers


def test_few_of_many_idle_workers_poll_for_a_job(
    db: Database, polls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a second for each poll, the one that claims tells the others before they poll."""
    from graphile_worker.worker.database import waking

    monkeypatch.setattr(waking, "STEP", 1.0)
    ran: list[int] = []

    async def task(payload: dict[str, int]) -> None:
        ran.append(payload["n"])

    with fleet(db, [{"t": task}] * SIZE, prefetch=5):
        db.rows(ADD, "t", 0)
        wait_for(lambda: ran == [0], "one polled", 2 * SIZE)
        polls.clear()
        for n in range(1, 6):
            db.rows(ADD, "t", n)
            wait_for(lambda: ran[-1] == n, "the one that claimed last polled at once", SOON)  # noqa: B023
        assert len(polls) <= 10, polls


def test_whatever_a_notification_of_a_claim_says_no_worker_fails() -> None:
    woken: list[bool] = []
    waking = Waking(
        ["t"], wake=lambda: woken.append(True), load=lambda: 0.0, fellows=lambda: 1,
        has_forbidden_flags=False,
    )  # fmt: skip
    for text in ("", "null", "[1]", '"x"', "{}", '{"tasks": 1}', "\x00", "[" * 7999):
        waking.claimed(text)
        waking.notified(text)
    assert len(woken) == 8


def test_only_what_tells_of_the_last_notification_keeps_a_worker_from_polling() -> None:
    asyncio.run(spread())


async def spread() -> None:
    woken: list[bool] = []
    waking = Waking(
        ["t"], wake=lambda: woken.append(True), load=lambda: 0.5, fellows=lambda: 10_000,
        has_forbidden_flags=False,
    )  # fmt: skip
    other = Waking(
        ["t"], wake=lambda: None, load=lambda: 0.5, fellows=lambda: 10, has_forbidden_flags=False
    )
    first, second = '{"r":0.1,"count":1}', '{"r":0.2,"count":1}'
    for each in (waking, other):
        each.notified(first)
    tells = other.to_tell()
    assert tells
    waking.notified(second)
    waking.claimed(tells)
    assert waking._timer is not None, "the second one came later"
    other.notified(second)
    tells = other.to_tell()
    assert tells
    other.told(tells)
    assert other.to_tell() is None
    waking.claimed(tells.replace('"tasks": "', '"tasks": "0'))
    assert waking._timer is not None, "of other tasks"
    waking.claimed(tells)
    assert waking._timer is None
    assert woken == []
    waking.notified(second)
    waking.notified('{"r":0.3,"count":5}')
    waking.notified('{"count":1}')
    assert len(woken) == 3, "at once: heard twice, of several jobs, and without a number"
    other.cancel()


@pytest.mark.parametrize(
    "seconds", [pytest.param(10, id="10"), pytest.param(300, id="300", marks=pytest.mark.slow)]
)
def test_no_job_is_left_lying_in_the_random_life_of_a_fleet(
    db: Database, polls: list[int], seconds: int, record_property: Callable[[str, object], None]
) -> None:
    """Workers of different tasks, few places, transactions that overlap, and full workers."""
    end, seed = time.monotonic() + seconds, random.randrange(10**6)
    numbers, added, started = itertools.count(), dict[int, float](), dict[int, float]()

    async def task(payload: dict[str, int]) -> None:
        started[payload["n"]] = time.monotonic()

    def adder(dice: random.Random) -> None:
        with db.connect(autocommit=False) as conn:
            for _ in range(dice.randint(1, 5)):
                mine = [next(numbers) for _ in range(dice.choice((1, 1, 1, 3)))]
                for number in mine:
                    conn.execute(ADD, (dice.choice("ab"), number))
                time.sleep(dice.random() ** 4 * 0.05)
                conn.commit()
                added.update(dict.fromkeys(mine, time.monotonic()))
                time.sleep(dice.random() ** 3 * 0.05)

    kinds: list[dict[str, Any]] = [{"a": task, "b": task}] * 4 + [{"a": task}] * 4
    with (
        fleet(db, kinds, concurrency=2) as workers,
        ThreadPoolExecutor(3) as pool,
    ):
        for burst in itertools.count():
            dice = [random.Random(f"{seed} {burst} {each}") for each in range(3)]
            list(pool.map(adder, dice))
            # Nothing else comes that could wake them.
            wait_for(lambda: added.keys() <= started.keys(), f"seed {seed}: all run", SOON)
            if time.monotonic() > end:
                break
        assert all(worker.health().ok for worker in workers)
    slowest = max(started[number] - at for number, at in added.items())
    record_property(
        "commit to start",
        f"{slowest:.3f} s at most: {burst} bursts, {len(added)} jobs,"
        f" {len(polls) / len(added):.1f} polls a job",
    )


def test_an_idle_worker_holds_two_connections_and_one_without_listen(db: Database) -> None:
    names = "select application_name from pg_stat_activity where datname = %s and pid <> pg_backend_pid() order by 1"
    ran: list[int] = []

    async def task(payload: dict[str, int]) -> None:
        ran.append(payload["n"])

    def connections() -> list[str]:
        with psycopg.connect(db.dsn, autocommit=True) as conn:
            found = [name for (name,) in conn.execute(names, [db.name])]
        return [name for name in found if name.startswith("graphile_worker")]

    with running({"t": task}, db):
        db.rows(ADD, "t", 1)
        wait_for(lambda: ran == [1], "it ran")
        wait_for(
            lambda: connections() == ["graphile_worker", "graphile_worker listen"],
            "the others are closed", 60,
        )  # fmt: skip
        db.rows(ADD, "t", 2)
        wait_for(lambda: ran == [1, 2], "it runs jobs after that")
    with running({"t": task}, db, listen=False):
        wait_for(lambda: connections() == ["graphile_worker"], "it has one", 60)
