"""The places of running jobs, which the workers of several databases may share."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Member(Protocol):
    """A fetcher with jobs that run, and jobs that wait for a place."""

    @property
    def running(self) -> int:
        """How many of its jobs run."""
        ...

    @property
    def waiting(self) -> int:
        """How many of its jobs may start; 0 when it has been stopped."""
        ...

    def start(self, most: int) -> int:
        """Start jobs until so many of its own run; return how many were started.

        Whatever comes of it, it has heard that there may be room.
        """
        ...


class Places:
    """So many jobs run at once, whichever database they are of.

    A place that becomes free goes to the member with the fewest running jobs, so that a long
    backlog of one database does not keep the others' jobs waiting. Where one member alone has jobs,
    it may have all places.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        #: How many jobs have been started in all.
        self.started = 0
        self._members: list[Member] = []
        self._is_starting = False

    def join(self, member: Member) -> None:
        """Let a member have places."""
        self._members.append(member)

    def leave(self, member: Member) -> None:
        """Take a member out; what it still runs no longer counts."""
        if member in self._members:
            self._members.remove(member)
        self.start()

    @property
    def free(self) -> int:
        """How many places are free."""
        if len(self._members) == 1:
            return self.most - self._members[0].running
        return self.most - sum(member.running for member in self._members)

    def share(self, member: Member) -> int:
        """Return how many places a member has for itself while others have jobs, at least one."""
        if len(self._members) == 1:
            return self.most
        others = sum(
            each.running + each.waiting > 0 for each in self._members if each is not member
        )
        return max(1, self.most // (others + 1))

    def wanted(self, member: Member) -> int:
        """Return how many more jobs a member may fetch to be run at once.

        Where all places are taken, as many as its share: others' places become free.
        """
        own = member.running + member.waiting
        if len(self._members) == 1:
            return self.most - own
        claimed = sum(each.running + each.waiting for each in self._members)
        return max(self.most - claimed, self.share(member) - own)

    def start(self) -> None:
        """Start as many waiting jobs as there are places; some end while they are started."""
        if self._is_starting:
            return
        self._is_starting = True
        try:
            # Alone, as most workers are, nothing has to be weighed for each job.
            started = (
                self._members[0].start(self.most)
                if len(self._members) == 1
                else self._start_in_turn()
            )
        finally:
            self._is_starting = False
        self.started += started
        if started >= self.most and self.free > 0:  # others have to run, too
            asyncio.get_running_loop().call_soon(self.start)

    def _start_in_turn(self) -> int:
        started = 0
        while self.free > 0 and started < self.most:
            waiting = [member for member in self._members if member.waiting]
            if not waiting:
                break
            fewest = min(waiting, key=lambda member: member.running)
            started += fewest.start(fewest.running + 1)
        for member in self._members:
            member.start(0)
        return started
