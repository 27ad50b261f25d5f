"""gw run --reload: tells which files of the tasks have changed, by watchfiles."""

from __future__ import annotations

import argparse
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from graphile_worker.errors import GraphileWorkerError

#: What is code or its settings; in a folder of tasks every file is.
_SUFFIXES = (".py", ".toml", ".json", ".json5")


@contextmanager
def watching(options: argparse.Namespace) -> Iterator[Connection]:
    """Watch the current folder and those of tasks; receive the names of files that changed."""
    try:
        import watchfiles
    except ImportError as error:
        raise GraphileWorkerError(
            "watchfiles tells of changes: run `pip install 'graphile-worker[cli]'`, or leave"
            " --reload out"
        ) from error
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    here = Path.cwd()
    folders = [here / name for name in options.tasks or ["tasks"] if (here / name).is_dir()]
    crontab = here / (options.crontab or "crontab")
    usual = watchfiles.DefaultFilter()

    def is_code(change: watchfiles.Change, name: str) -> bool:
        path = Path(name)
        wanted = (
            path.suffix in _SUFFIXES
            or path == crontab
            or any(folder in path.parents for folder in folders)
        )
        return wanted and usual(change, name)

    received, sent = Pipe(duplex=False)
    stop = threading.Event()
    outside = [folder for folder in folders if here not in folder.parents]

    def watch() -> None:
        for changes in watchfiles.watch(
            here, *outside, watch_filter=is_code, stop_event=stop, raise_interrupt=False,
            rust_timeout=500,
        ):  # fmt: skip
            sent.send(sorted({_shown(Path(name), here) for _, name in changes}))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        stop.set()
        thread.join()
        received.close()
        sent.close()


def _shown(path: Path, here: Path) -> str:
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
