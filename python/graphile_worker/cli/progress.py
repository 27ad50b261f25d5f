"""A bar in the terminal for what takes longer than a second, by rich."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

#: Seconds after which there is a bar.
AFTER = 1.0


class Bar:
    """What is done of something long; nothing is shown outside a terminal, or without rich."""

    def __init__(self, progress: Progress | None, what: str, total: int | None) -> None:
        self._progress = progress
        self._task = None if progress is None else progress.add_task(what, total=total, note="")

    def advance(self, steps: int) -> None:
        """Note that so many more are done."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, steps)

    def note(self, text: str) -> None:
        """Say what it is waiting for."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, note=text)


@contextmanager
def bar(what: str, total: int | None = None) -> Iterator[Bar]:
    """Show a bar on stderr while the block runs; without a total it only moves."""
    progress = _progress(total) if sys.stderr.isatty() else None
    if progress is None:
        yield Bar(None, what, total)
        return
    shown = Bar(progress, what, total)
    later = threading.Timer(AFTER, progress.start)
    later.daemon = True
    later.start()
    try:
        yield shown
    finally:
        later.cancel()
        later.join()
        progress.stop()


def _progress(total: int | None) -> Progress | None:
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        return None
    counted = [progress.MofNCompleteColumn(), progress.TimeRemainingColumn()] if total else []
    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False), progress.BarColumn(), *counted,
        progress.TimeElapsedColumn(), progress.TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
