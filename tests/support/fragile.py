"""A private server that may be stopped without the care of a shutdown."""

from __future__ import annotations

from graphile_worker.testing import embedded


class FragileServer(embedded.Server):
    """A server that can crash and recover, at the same address."""

    def crash(self) -> None:
        self._pg_ctl("stop", "-w", "-m", "immediate")

    def recover(self) -> None:
        self._pg_ctl("start", "-w", "-l", "/dev/null")
