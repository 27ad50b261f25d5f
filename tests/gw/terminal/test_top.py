"""gw top: a screen with keys in a terminal, and text elsewhere."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from graphile_worker.cli.nodes import each_of
from graphile_worker.cli.tables import Table
from graphile_worker.errors import InvalidFilter
from graphile_worker.gw.cli import build_parser
from graphile_worker.gw.top.app import Top
from graphile_worker.gw.top.screens import JobScreen, Question
from graphile_worker.gw.top.source import Shown, filters_of, sorted_rows
from graphile_worker.worker.cluster.members import place_of
from support.pg import Database, Server, wait_for
from textual.pilot import Pilot
from textual.widgets import DataTable, Static, TabbedContent

from gw.rows import add
from gw.ui.site import fill

pytestmark = pytest.mark.majors(18)

CONNECTED = "from pg_stat_activity where application_name = 'gw' and datname = current_database()"


def test_top_goes_on_until_interrupted(db: Database) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "graphile_worker.gw.cli", "top", "--json", "--interval", "0.2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "GW_DSN": db.dsn},
    )  # fmt: skip
    assert process.stdout is not None
    frames = 0
    for line in process.stdout:
        frames += line == "}\n"
        if frames == 3:
            break
    process.send_signal(2)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_top_lives_in_a_terminal_and_outlives_a_lost_connection(db: Database) -> None:
    add(db, "a_task_to_see")
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "graphile_worker.gw.cli", "top", "--interval", "0.2"],
        stdin=inner, stdout=inner, stderr=inner,
        env={**os.environ, "GW_DSN": db.dsn, "COLUMNS": "120", "LINES": "40", "TERM": "xterm"},
    )  # fmt: skip
    os.close(inner)
    seen = list[bytes]()

    def read() -> None:
        with suppress(OSError):  # the terminal's other end is closed
            while got := os.read(outer, 1 << 16):
                seen.append(got)

    def shown(text: bytes) -> bool:
        return text in b"".join(seen)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        wait_for(lambda: shown(b"a_task_to_see"))
        assert db.column(f"select pg_terminate_backend(pid) {CONNECTED}") == [True]
        wait_for(lambda: db.column(f"select pid {CONNECTED}"))
        add(db, "another_task")
        wait_for(lambda: shown(b"another_task"))
        process.send_signal(2)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        reader.join()
        os.close(outer)
    assert shown(b"\x1b[?1049l"), "the terminal is as it was"


# --- by keyboard


def shown(app: Top, name: str) -> list[list[str]]:
    table = app.screen_stack[0].query_one(f"#{name}-table", DataTable)
    return [[str(cell) for cell in table.get_row_at(n)] for n in range(table.row_count)]


def by_keyboard(
    db: Database, act: Callable[[Top, Pilot[None]], Awaitable[None]], *others: Database
) -> None:
    given = [part for each in (db, *others) for part in ("--dsn", each.dsn)]
    options = build_parser().parse_args(["top", *given, "--interval", "0.2"])
    options.prog = "gw"
    shows = each_of(options) if others else {"": options}

    async def run() -> None:
        app = Top(shows)
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: app.screen_stack[0].query_one("#totals", Static).visual)
            await act(app, pilot)
            await app.action_quit()

    asyncio.run(run())


async def until(pilot: Pilot[None], holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(120):
        while not holds():
            await pilot.pause(0.02)


def test_each_of_several_databases_is_shown(db: Database, server: Server) -> None:
    with server.with_extension() as other:
        add(db, "of_the_first")
        add(other, "of_the_second")

        async def act(app: Top, pilot: Pilot[None]) -> None:
            for task, shown_of in (("of_the_first", db), ("of_the_second", other)) * 2:
                await until(pilot, lambda: [row[0] for row in shown(app, "Tasks")] == [task])  # noqa: B023
                totals = app.screen_stack[0].query_one("#totals", Static)
                assert place_of(shown_of.dsn) in str(totals.visual)
                await pilot.press("n")

        by_keyboard(db, act, other)


def test_a_task_is_opened_down_to_its_job_which_is_retried(db: Database) -> None:
    jobs = fill(db)

    async def act(app: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: len(shown(app, "Tasks")) == 3)
        await pilot.press("s")
        await until(pilot, lambda: [row[0] for row in shown(app, "Tasks")] == ["bad", "slow", "t"])
        await pilot.press("up", "up", "enter")  # the cursor has stayed on its row
        await until(pilot, lambda: [row[0] for row in shown(app, "Jobs")] == [str(jobs["failed"])])
        assert app.query_one("#tabs", TabbedContent).active == "Jobs"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, JobScreen))
        assert "permanently failed" in app.screen._text  # type: ignore[attr-defined]
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, Question))
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, JobScreen))
        assert db.value("select attempts from graphile_worker.jobs where id = %s", jobs["failed"])
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, Question))
        await pilot.press("y")
        await until(
            pilot,
            lambda: db.value(
                "select attempts = 0 from graphile_worker.jobs where id = %s", jobs["failed"]
            ),
        )
        await pilot.press("escape")
        await until(pilot, lambda: shown(app, "Jobs")[0][1] == "ready")

    by_keyboard(db, act)


def test_jobs_are_filtered_and_the_order_is_kept_while_they_change(db: Database) -> None:
    jobs = fill(db)

    async def act(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("slash")
        await pilot.press(*"state:running")
        await pilot.press("enter")
        await until(pilot, lambda: [row[0] for row in shown(app, "Jobs")] == [str(jobs["running"])])
        await pilot.press("slash")
        await pilot.press("end", *["backspace"] * 20, *"state:asleep", "enter")
        await until(pilot, lambda: any("asleep" in said.message for said in app._notifications))
        await pilot.press(*["backspace"] * 20, "enter")
        await until(pilot, lambda: len(shown(app, "Jobs")) == 4)
        await pilot.press("s", "S")

        def found() -> list[int]:
            return [int(row[0]) for row in shown(app, "Jobs")]

        await until(pilot, lambda: found() == sorted(found(), reverse=True))
        await pilot.press("S")
        more = add(db)
        await until(pilot, lambda: len(found()) == 5)
        assert found()[-1] == more
        await pilot.press("p")
        await until(pilot, lambda: "paused" in str(app.query_one("#said", Static).visual))

    by_keyboard(db, act)


def test_no_cell_is_cut_though_the_table_is_painted_as_soon_as_it_is_filled(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def filled(n: int) -> Shown:
        rows = [(f"a_task_with_a_long_name_{n}", 5), ("漢字" * 10, 123_456_789)]
        return Shown(Table(("ready",), [(1,)]), {"Tasks": Table(("task", "n"), rows)})

    def painted(app: Top) -> str:
        table = app.query_one("#Tasks-table", DataTable)
        return "\n".join(table.render_line(y).text for y in range(3))

    monkeypatch.setattr(Top, "_follow", lambda app: app.call_later(app._show, filled(0)))

    async def act(app: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.query_one("#Tasks-table").has_focus)
        await pilot.pause()
        app._show(filled(1))
        painted(app)
        await pilot.pause()
        for cell in ("a_task_with_a_long_name_1", "漢字" * 10, "123456789"):
            assert cell in painted(app)

    by_keyboard(db, act)


def test_a_filter_is_read_or_told_what_is_wrong() -> None:
    found = filters_of(
        """state:failed state:running 'task:a b' queue:q error:"time-out at" key:k"""
    )
    assert (found.states, found.task, found.queue) == (["failed", "running"], "a b", "q")
    assert (found.error, found.key) == ("time-out at", "k")
    assert filters_of("send_email").task == "send_email"
    assert filters_of("http://x").task == "http://x"
    assert filters_of("").values()["states"] is None
    with pytest.raises(InvalidFilter, match="ready, scheduled, running, failed"):
        filters_of("state:asleep")
    with pytest.raises(InvalidFilter, match="quote"):
        filters_of("task:'x")


def test_rows_are_sorted_by_number_or_text_and_empty_ones_come_last() -> None:
    table = Table(("a", "b"), [(10, "b"), (9, None), (100, "A")])
    assert [row[0] for row in sorted_rows(table, 0, False)] == [9, 10, 100]
    assert [row[0] for row in sorted_rows(table, 1, False)] == [100, 10, 9]
    assert [row[0] for row in sorted_rows(table, 1, True)] == [10, 100, 9]
