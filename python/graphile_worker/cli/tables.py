"""Tables in a terminal, by rich, which is imported when one is to be shown."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphile_worker.cli import flags
from graphile_worker.errors import GraphileWorkerError
from graphile_worker.gw.values import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

STYLES = {"failed": "red", "running": "green", "dead": "red", "alive": "green", "locked": "yellow"}


@dataclass(frozen=True)
class Table:
    """A table: its columns, its rows, a title, and the text shown when it has no rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str | None = None
    nothing: str = "nothing"


def needed() -> None:
    """Raise an error with the remedy if tables cannot be shown."""
    try:
        import rich  # noqa: F401
    except ImportError as error:
        raise GraphileWorkerError(
            "rich shows tables: run `pip install 'graphile-worker[cli]'`, or use --json"
        ) from error


def grid(table: Table) -> RichTable:
    """Return the table in rich's form; text in its cells is never read as markup."""
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(title=table.title, title_justify="left", box=None, pad_edge=False)
    for column in table.columns:
        made.add_column(column, overflow="fold")
    for row in table.rows:
        texts = ("" if cell is None else plain(cell) for cell in row)
        made.add_row(*(Text(text, style=STYLES.get(text, "")) for text in texts))
    if not table.rows:
        made.add_row(Text(table.nothing, style="dim"))
    return made


def console() -> Console:
    """Return the console that shows tables; outside a terminal it is as wide as they are."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 1000)


def show(options: argparse.Namespace, value: Any, tables: Callable[[], Sequence[Table]]) -> None:
    """Print a result as tables, or as JSON with --json."""
    if options.json:
        flags.out(options, value, "")
        return
    screen = console()
    for table in tables():
        screen.print(grid(table))
