"""The places that several databases share: never too many, and fair."""

from __future__ import annotations

import asyncio
import random

import pytest
from graphile_worker.worker.cluster.places import Places


class Member:
    """A fetcher without a database."""

    def __init__(self, places: Places) -> None:
        self.places, self.running, self.queue = places, 0, 0
        self.noticed_times = 0
        places.join(self)

    @property
    def waiting(self) -> int:
        return self.queue

    def start(self, most: int) -> int:
        started = 0
        while self.queue and self.running < most:
            assert self.places.free > 0
            self.queue -= 1
            self.running += 1
            started += 1
        self.noticed_times += 1
        return started

    def add(self, jobs: int) -> None:
        self.queue += jobs
        self.places.start()

    def end(self) -> None:
        self.running -= 1
        self.places.start()


@pytest.mark.parametrize("seed", range(20))
def test_no_more_run_than_there_are_places_and_none_is_idle_while_jobs_wait(seed: int) -> None:
    dice = random.Random(seed)

    async def life() -> None:
        places = Places(dice.randint(1, 12))
        members = [Member(places) for _ in range(dice.randint(1, 6))]
        for _ in range(500):
            member = dice.choice(members)
            choice = dice.random()
            if choice < 0.4:
                member.add(dice.randint(1, 10))
            elif choice < 0.95:
                if member.running:
                    member.end()
            elif len(members) > 1 and not member.running:
                members.remove(member)
                places.leave(member)
            await asyncio.sleep(0)
            running = sum(each.running for each in members)
            waiting = sum(each.queue for each in members)
            assert running <= places.most
            assert waiting == 0 or running == places.most
            assert all(
                places.wanted(each) + each.running + each.queue <= places.most for each in members
            )
            assert places.free == places.most - running

    asyncio.run(life())


def test_a_place_that_becomes_free_goes_to_the_member_with_the_fewest() -> None:
    async def life() -> None:
        places = Places(6)
        greedy, late, last = (Member(places) for _ in range(3))
        greedy.add(1000)
        assert greedy.running == 6
        assert places.wanted(late) == 3
        late.add(100)
        for _ in range(3):
            greedy.end()
        assert (greedy.running, late.running) == (3, 3)
        assert places.wanted(last) == 2
        last.add(1)
        greedy.end()
        assert (greedy.running, late.running, last.running) == (2, 3, 1)
        last.end()
        assert sorted([greedy.running, late.running]) == [3, 3]
        places.leave(late)
        assert greedy.running == 6
        assert last.noticed_times

    asyncio.run(life())


def test_all_places_are_for_one_member_that_is_alone_with_jobs() -> None:
    places = Places(8)
    members = [Member(places) for _ in range(100)]
    assert places.share(members[0]) == 8
    assert places.wanted(members[0]) == 8
    members[0].add(8)
    assert places.share(members[1]) == 4
    assert places.wanted(members[1]) == 4
    for member in members[1:]:
        member.queue = 1
    assert places.share(members[1]) == 1
    assert places.wanted(members[1]) == 0
