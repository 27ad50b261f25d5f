"""The places of running jobs, which the workers of several databases may share."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Member(Protocol):
    """A fetcher with jobs that run, and jobs that wait for a place."""

    @property
    def running(self) -> int:
        """How many of its jobs run."""

    @property
    def waiting(self) -> int:
        """How many of its jobs may start; 0 when it has been stopped."""

    def start_next(self) -> None:
        """Start the job that has waited longest."""

    def noticed(self) -> None:
        """Hear that places may have become free."""


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
        self._is_starting, left = True, self.most
        try:
            while self.free > 0 and (member := self._next()) is not None:
                if left == 0:  # others have to run, too
                    asyncio.get_running_loop().call_soon(self.start)
                    break
                member.start_next()
                self.started += 1
                left -= 1
        finally:
            self._is_starting = False
        for member in self._members:
            member.noticed()

    def _next(self) -> Member | None:
        if len(self._members) == 1:
            return self._members[0] if self._members[0].waiting else None
        waiting = [member for member in self._members if member.waiting]
        return min(waiting, key=lambda member: member.running, default=None)
