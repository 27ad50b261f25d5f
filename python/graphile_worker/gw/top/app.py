"""The screen of gw top: tables that follow the queue, and keys to sort, filter, open and retry."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

import psycopg
from rich.cells import cell_len
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Input, Static, TabbedContent, TabPane

from graphile_worker.cli.tables import STYLES, Table
from graphile_worker.errors import GraphileWorkerError, InvalidFilter
from graphile_worker.gw import stats
from graphile_worker.gw.jobs import retry
from graphile_worker.gw.queue import opened
from graphile_worker.gw.top.screens import JobScreen, Question
from graphile_worker.gw.top.source import (
    NARROWS,
    Shown,
    Wanted,
    as_filter,
    everything_about,
    filters_of,
    read,
    sorted_rows,
)
from graphile_worker.gw.values import plain

TABS = (*NARROWS, "Progress", "Jobs")
#: Seconds that the thread which reads has to notice that it is over.
_ENDS_WITHIN = 1.0


class _Rows(DataTable[Text]):
    """A table, whose footer names the key that opens a row."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "Open")]


class Top(App[None]):
    """Reads a queue in a thread, and shows it until the user leaves: of several, one at a time."""

    CSS = """
    #tabs { height: 1fr; }
    #totals { height: auto; padding: 0 1; }
    #said { height: auto; padding: 0 1; color: $warning; }
    #filter { display: none; }
    #job { border: round $primary; padding: 0 1; margin: 1 4; height: 1fr; }
    #question { border: round $warning; padding: 1 2; margin: 4 8; height: auto; }
    DataTable { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit", "Leave"),
        Binding("s", "sort", "Sort"),
        Binding("S", "reverse", "Reverse"),
        Binding("slash", "filter", "Filter"),
        Binding("r", "retry", "Retry"),
        Binding("p", "pause", "Pause"),
        Binding("n", "node", "Next node"),
        *(Binding(str(n), f"tab('{name}')", name, show=False) for n, name in enumerate(TABS, 1)),
    ]
    ENABLE_COMMAND_PALETTE = False
    TITLE = "gw top"

    def __init__(self, databases: Mapping[str, argparse.Namespace]) -> None:
        super().__init__()
        self._databases = list(databases.items())
        self._place, self._options = self._databases[0]
        self._wanted = Wanted(self._options.limit)
        self._shown: Shown | None = None
        #: By table: the column and whether it is reversed.
        self._orders: dict[str, tuple[int, bool]] = {}
        #: What each table shows, and in which order.
        self._filled: dict[str, tuple[Table, int, bool]] = {}
        self._is_paused = False
        self._wake, self._leaving = threading.Event(), threading.Event()
        self._began = False
        #: What was wrong from the start.
        self._error: BaseException | None = None

    def compose(self) -> ComposeResult:
        """Make the tables."""
        yield Static(id="totals")
        yield Static(id="said")
        with TabbedContent(id="tabs"):
            for name in TABS:
                with TabPane(name, id=name):
                    yield _Rows(cursor_type="row", id=f"{name}-table")
        yield Input(placeholder="state:failed task:send_email error:time-out", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to read."""
        self._table("Tasks").focus()
        threading.Thread(target=self._follow, daemon=True).start()

    def show(self) -> None:
        """Show the screen; raise what was wrong from the start."""
        try:
            self.run()
        finally:
            self._end()
        if self._error is not None:
            raise self._error

    async def action_quit(self) -> None:
        """Leave."""
        self._end()
        self.exit()

    def _end(self) -> None:
        self._leaving.set()
        self._wake.set()

    # --- reading

    def _follow(self) -> None:
        """Read again and again; what fails later is tried again."""
        while not self._leaving.is_set():
            place = self._place
            try:
                with opened(self._options) as queue:
                    before = stats.counted(queue)
                    while not self._leaving.is_set() and place == self._place:
                        after = stats.counted(queue)
                        shown = read(queue, self._wanted, stats.speed(before, after))
                        before, self._began = after, True
                        self.call_later(self._show, shown)
                        self._wait()
            except (psycopg.OperationalError, GraphileWorkerError) as error:
                if not self._began:
                    self._error = error
                    self.call_later(self.exit)
                    return
                self.call_later(self._say, f"{plain(error)}; trying again")
                self._wait()

    def _wait(self) -> None:
        self._wake.wait(self._options.interval)
        while self._is_paused and not self._wake.is_set():
            self._wake.wait(_ENDS_WITHIN)
        self._wake.clear()

    # --- showing

    def _table(self, name: str) -> _Rows:
        return self.screen_stack[0].query_one(f"#{name}-table", _Rows)

    def _show(self, shown: Shown) -> None:
        self._shown = shown
        columns, (row,) = shown.totals.columns, shown.totals.rows
        said = "  ".join(f"{name} {cell}" for name, cell in zip(columns, row, strict=True))
        said = f"{self._place}  {said}" if self._place else said
        self.screen_stack[0].query_one("#totals", Static).update(Text(said))
        self._say("paused" if self._is_paused else "")
        self._fill(self._tab)

    def _say(self, text: str) -> None:
        self.screen_stack[0].query_one("#said", Static).update(Text(text))

    def _fill(self, name: str) -> None:
        """Show a table's rows, and keep the cursor on its row."""
        table = self._table(name)
        source = self._shown.tables.get(name, Table((name.lower(),), [])) if self._shown else None
        if source is None:
            return
        column, reverse = self._orders.get(name, (-1, False))
        rows = source.rows if column < 0 else sorted_rows(source, column, reverse)
        if self._filled.get(name) == (source, column, reverse):
            return
        self._filled[name] = (source, column, reverse)
        at = self._key_at(name)
        table.clear(columns=True)
        columns = enumerate(source.columns)
        marks = {column: " ▼" if reverse else " ▲"}
        labels = [Text(f"{label}{marks.get(number, '')}") for number, label in columns]
        texts = [["" if cell is None else plain(cell) for cell in row] for row in rows]
        for number, (label, *cells) in enumerate(zip(labels, *texts, strict=True)):
            # Textual measures rows when it is idle, and a row painted before stays cut.
            width = max(map(cell_len, (label.plain, *cells)))
            table.add_column(label, width=width, key=str(number))
        for cells in texts:
            styled = (Text(cell, style=STYLES.get(cell, "")) for cell in cells)
            table.add_row(*styled, key=cells[0] if cells[0] not in table.rows else None)
        if at is not None and at in table.rows:
            table.move_cursor(row=table.get_row_index(at), animate=False)

    def _key_at(self, name: str) -> str | None:
        table = self._table(name)
        if not table.is_valid_row_index(table.cursor_row):
            return None
        return table.coordinate_to_cell_key((table.cursor_row, 0)).row_key.value  # type: ignore[arg-type]

    # --- keys

    @property
    def _tab(self) -> str:
        return self.screen_stack[0].query_one("#tabs", TabbedContent).active

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer another node only where there is one."""
        return action != "node" or len(self._databases) > 1

    def action_node(self) -> None:
        """Show the next node."""
        self._databases.append(self._databases.pop(0))
        self._place, self._options = self._databases[0]
        self._wake.set()

    def action_tab(self, name: str) -> None:
        """Show a table."""
        self.query_one("#tabs", TabbedContent).active = name
        self._table(name).focus()

    def on_tabbed_content_tab_activated(self, event: TabbedContent.TabActivated) -> None:
        """Fill the table that is looked at."""
        self._fill(self._tab)

    def action_sort(self) -> None:
        """Sort by the next column; after the last one, as read."""
        column, _ = self._orders.get(self._tab, (-1, False))
        most = len(self._table(self._tab).columns)
        self._sort(self._tab, column + 1 if column + 1 < most else -1, False)

    def action_reverse(self) -> None:
        """Turn the order round."""
        column, reverse = self._orders.get(self._tab, (0, False))
        self._sort(self._tab, max(column, 0), not reverse)

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """Sort by the column that was clicked."""
        column, reverse = self._orders.get(self._tab, (-1, False))
        same = column == event.column_index
        self._sort(self._tab, event.column_index, same and not reverse)

    def _sort(self, name: str, column: int, reverse: bool) -> None:
        self._orders[name] = (column, reverse)
        self._fill(name)

    def action_filter(self) -> None:
        """Let the user type a filter of the jobs."""
        self.action_tab("Jobs")
        line = self.query_one("#filter", Input)
        line.display = True
        line.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the filter."""
        try:
            self._narrow(event.value)
        except InvalidFilter as error:
            self.notify(str(error), severity="error")
            return
        event.input.display = False
        self._table("Jobs").focus()

    def on_key(self, event: object) -> None:
        """Leave the filter as it was with escape."""
        line = self.query_one("#filter", Input) if len(self.screen_stack) == 1 else None
        if line is not None and line.has_focus and getattr(event, "key", "") == "escape":
            line.display = False
            self._table("Jobs").focus()

    def _narrow(self, text: str) -> None:
        self._wanted.filters = filters_of(text)
        self.query_one("#filter", Input).value = text
        self.query_one("#tabs", TabbedContent).get_tab("Jobs").label = (
            f"Jobs ({text})" if text else "Jobs"
        )
        self._wake.set()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Open the row that was entered."""
        self._open(event.row_key.value or "")

    def _open(self, key: str) -> None:
        """Show a job, or the jobs of a task, queue or worker."""
        if not key:
            return
        if self._tab in NARROWS:
            self._narrow(as_filter(NARROWS[self._tab], key))
            self.action_tab("Jobs")
        else:
            self._in_thread(lambda: self._opened(int(key)))

    def _opened(self, job: int) -> None:
        text = everything_about(self._options, job)
        self.call_later(lambda: self.push_screen(JobScreen(job, text, self.ask_to_retry)))

    def action_retry(self) -> None:
        """Ask whether to retry the job under the cursor."""
        key = self._key_at(self._tab)
        if self._tab in NARROWS or key is None:
            self.notify("choose a job to retry in the table of jobs")
            return
        self.ask_to_retry(int(key))

    def ask_to_retry(self, job: int) -> None:
        """Retry a job if the user says so."""

        def then(agreed: bool | None) -> None:
            if agreed:
                self._in_thread(lambda: self._retry(job))

        self.push_screen(Question(f"Run job {job} now, with all its attempts?"), then)

    def _retry(self, job: int) -> None:
        with opened(self._options) as queue, queue.limited():
            done = retry(queue.utils, [job])
        said = f"job {job} runs again" if done else f"job {job} is running or gone: left as it is"
        self.call_later(lambda: self.notify(said))
        self._wake.set()

    def action_pause(self) -> None:
        """Stop following, or go on."""
        self._is_paused = not self._is_paused
        self._say("paused" if self._is_paused else "")
        self._wake.set()

    def _in_thread(self, act: Callable[[], None]) -> None:
        def guarded() -> None:
            with self._told():
                act()

        threading.Thread(target=guarded, daemon=True).start()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what went wrong, and go on."""
        try:
            yield
        except (psycopg.Error, GraphileWorkerError) as error:
            text = plain(error)
            self.call_later(lambda: self.notify(text, severity="error"))
