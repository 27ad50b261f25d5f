"""Busy workers are not notified, and no job is left lying."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
import pytest
from graphile_worker.worker import Worker
from graphile_worker.worker import fetcher as taking
from graphile_worker.worker.database.protocol import Protocol
from graphile_worker.worker.database.statements import Fetched
from graphile_worker.worker.lease import Lease
from support.live import running
from support.pg import Database, wait_for

pytestmark = pytest.mark.majors(13, 18)

ADD = "select graphile_worker.add_job(%s, %s::text::json)"
BUSY = "select array_agg(is_busy) from graphile_worker.workers"
#: Seconds from the commit to the start: a worker that is not woken looks after ten, see below.
SOON = 5.0


@pytest.fixture
def idle_db(db: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database whose workers do not look by themselves when they are idle."""
    monkeypatch.setattr(taking, "FIRST_POLL", 60.0)
    # Adders and workers share this process, and the machine with other tests: there are pauses.
    monkeypatch.setattr(taking, "BUSY_AFTER", 0.5)
    monkeypatch.setattr(taking, "ENOUGH", 0)
    monkeypatch.setattr(taking, "FEW", 1)
    monkeypatch.setattr(taking, "PAUSE", 0.05)
    return db


@contextmanager
def adding(db: Database, task: str = "t") -> Iterator[None]:
    """Add jobs one by one meanwhile."""
    stop = threading.Event()

    def add() -> None:
        with db.connect() as conn:
            while not stop.is_set():
                conn.execute(ADD, (task, "{}"))

    thread = threading.Thread(target=add)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_worker_that_took_all_there_was_does_not_look_again(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind dead rows a look that finds nothing takes long, and the next job waits for its end."""
    monkeypatch.setattr(taking, "FIRST_POLL", 60.0)
    counts: list[int] = []
    take = Protocol.fetch

    async def counted(*arguments: Any) -> Fetched:
        fetched = await take(*arguments)
        counts.append(len(fetched.rows))
        return fetched

    monkeypatch.setattr(Protocol, "fetch", counted)
    ran: list[int] = []

    async def t(payload: int) -> None:
        ran.append(payload)

    with running({"t": t}, db, poll_interval=120):
        for n in range(20):
            db.rows(ADD, "t", f"{n}")
            wait_for(partial(ran.__contains__, n), "it was woken", SOON)
    assert counts.count(0) <= 2, "at its start, and when it begins to listen"


def test_a_worker_that_others_left_too_few_jobs_looks_again(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "FIRST_POLL", 60.0)
    ran: list[int] = []

    async def t(payload: int) -> None:
        ran.append(payload)

    for n in range(30):
        db.rows(ADD, "t", f"{n}")
    other = db.connect()
    with other.transaction():
        other.execute("select from graphile_worker._private_jobs order by id limit 20 for update")
        with running({"t": t}, db, poll_interval=120, concurrency=24, prefetch=0):
            wait_for(lambda: len(ran) == 10, "it took the rest", SOON)


def test_a_worker_that_finds_few_jobs_does_not_become_busy(
    idle_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after a slow start either, nor while a limit makes it poll."""
    monkeypatch.setattr(taking, "BUSY_AFTER", 0.0)
    monkeypatch.setattr(taking, "ENOUGH", 2)
    said: list[bool] = []
    announce = Lease.set_busy

    async def heard(lease: Lease, busy: bool) -> None:
        said.append(busy)
        await announce(lease, busy)

    monkeypatch.setattr(Lease, "set_busy", heard)
    ran: list[Any] = []

    async def t(payload: Any) -> None:
        ran.append(payload)

    with running({"t": t}, idle_db, poll_interval=120):
        for n in range(5):
            idle_db.rows(ADD, "t", f"{n}")
            wait_for(partial(ran.__contains__, n), "it was woken", SOON)
    assert said == []


def test_a_busy_worker_is_not_notified_and_one_that_sleeps_is(idle_db: Database) -> None:
    ran: list[Any] = []

    async def t(payload: Any) -> None:
        ran.append(payload)

    listener = idle_db.connect()
    with running({"t": t}, idle_db, poll_interval=120):
        with adding(idle_db):
            wait_for(lambda: idle_db.value(BUSY) == [True], "it is busy")
            listener.execute('listen "jobs:insert"')
            before = len(ran)
            wait_for(lambda: len(ran) > before + 100, "it works")
            assert not list(listener.notifies(timeout=0))
        wait_for(lambda: idle_db.value(BUSY) == [False], "it sleeps")
        idle_db.rows(ADD, "t", '{"last": true}')
        wait_for(lambda: ran[-1] == {"last": True}, "it was woken", SOON)
        assert len(list(listener.notifies(timeout=0.2))) == 1


def test_a_job_committed_long_after_its_adder_saw_a_busy_worker_is_not_left_lying(
    idle_db: Database,
) -> None:
    ran: list[Any] = []

    async def t(payload: Any) -> None:
        ran.append(payload)

    listener = idle_db.connect()
    late = idle_db.connect(autocommit=False)
    with running({"t": t}, idle_db, poll_interval=120):
        with adding(idle_db):
            wait_for(lambda: idle_db.value(BUSY) == [True], "it is busy")
            late.execute(ADD, ("t", '{"late": true}'))
        wait_for(lambda: idle_db.value(BUSY) == [False], "it sleeps")
        listener.execute('listen "jobs:insert"')
        time.sleep(1)  # nothing comes: it is to sleep as deeply as it ever does
        assert idle_db.value(BUSY) == [False]
        late.commit()
        wait_for(lambda: ran[-1] == {"late": True}, "it was seen", SOON)
        assert not list(listener.notifies(timeout=0))


@pytest.mark.majors(13, 18)
@pytest.mark.parametrize(
    "seconds", [pytest.param(12, id="12"), pytest.param(900, id="900", marks=pytest.mark.slow)]
)
def test_no_job_is_left_lying_in_a_random_life(
    idle_db: Database, seconds: int, monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    """Bursts that end one transaction after the other, around the time when workers fall asleep."""
    monkeypatch.setattr(taking, "BUSY_AFTER", 0.05)
    monkeypatch.setattr(taking, "PAUSE", 0.02)
    end = time.monotonic() + seconds
    seed = random.randrange(10**6)
    numbers, added, said = itertools.count(), dict[int, float](), list[bool]()
    started: dict[int, float] = {}

    async def task(payload: Any) -> None:
        started[payload["n"]] = time.monotonic()

    def adder(dice: random.Random) -> None:
        """Add for a while; then one transaction more, that some time passes before and within."""
        burst = time.monotonic() + dice.uniform(0.1, 0.3)
        with idle_db.connect(autocommit=False) as conn:
            while time.monotonic() < burst:
                transaction(conn, dice)
            time.sleep(dice.random() * 0.15)
            transaction(conn, dice, dice.random() ** 2 * 0.3)

    def transaction(
        conn: psycopg.Connection[Any], dice: random.Random, seconds: float = 0.0
    ) -> None:
        if dice.random() < 0.2:
            conn.execute("set transaction isolation level repeatable read")
            conn.execute("select")
        mine = [next(numbers) for _ in range(dice.choice((1, 1, 3)))]
        for number in mine:
            conn.execute(ADD, (dice.choice("ab"), f'{{"n": {number}}}'))
        time.sleep(seconds)
        if seconds == 0.0 and dice.random() < 0.1:
            conn.rollback()
        else:
            conn.commit()
            added.update(dict.fromkeys(mine, time.monotonic()))

    def hear(worker: Worker) -> None:
        announce = worker._lease.set_busy

        async def heard(busy: bool) -> None:
            said.append(busy)
            await announce(busy)

        worker._lease.set_busy = heard  # type: ignore[method-assign]

    with (
        running({"a": task}, idle_db, poll_interval=120, concurrency=3) as first,
        running({"a": task, "b": task}, idle_db, poll_interval=120) as second,
        ThreadPoolExecutor(3) as pool,
    ):
        hear(first)
        hear(second)
        for name in "ab":  # old snapshots have to know them
            idle_db.rows(ADD, name, f'{{"n": {next(numbers)}}}')
        for burst in itertools.count():
            dice = [random.Random(f"{seed} {burst} {each}") for each in range(3)]
            list(pool.map(adder, dice))
            # Nothing else comes that could wake them.
            wait_for(lambda: added.keys() <= started.keys(), f"seed {seed}: all run", SOON)
            if time.monotonic() > end:
                break
    slowest = max(started[number] - at for number, at in added.items())
    assert said.count(False) > burst / 2, said
    record_property(
        "commit to start",
        f"{slowest:.3f} s at most: {burst} bursts, {len(added)} jobs, {len(said)} changes",
    )
