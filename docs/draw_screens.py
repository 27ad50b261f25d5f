"""Draw the screens of docs/gw.md: `gw top` and `gw explain` on a private server, as SVG."""

from __future__ import annotations

import asyncio
import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import psycopg
from graphile_worker.gw.cli import build_parser, main
from graphile_worker.gw.top.app import Top
from graphile_worker.testing.embedded import Server
from rich.console import Console

HERE = Path(__file__).parent
SETUP = """
create extension graphile_worker;
select graphile_worker.add_job('send_email', queue_name := 'emails') from generate_series(1, 40);
select graphile_worker.add_job('resize', '{}') from generate_series(1, 120);
select graphile_worker.add_job('report', run_at := now() + '1 hour') from generate_series(1, 3);
select graphile_worker.heartbeat('gw-app1-4711-3f0a', '{send_email,resize,report}',
  '{"host": "app1", "pid": 4711}');
select count(*) from graphile_worker.get_jobs('gw-app1-4711-3f0a', 12);
select graphile_worker.fail_jobs('gw-app1-4711-3f0a',
  '[{"id": 1, "error": "SMTPServerDisconnected", "final": true}]');
select count(*) from graphile_worker.get_jobs('gw-app1-4711-3f0a', 1, '{send_email}');
"""


def draw(name: str, title: str, show: object) -> None:
    console = Console(record=True, width=100, file=io.StringIO(), color_system="truecolor")
    console.print(show, highlight=False)
    save(name, console.export_svg(title=title, unique_id=name.partition(".")[0]))


async def screen(dsn: str) -> str:
    """Return gw top's screen, once it shows the queue."""
    options = build_parser().parse_args(["top", "--dsn", dsn, "--interval", "0.1"])
    options.prog = "gw"
    app = Top({"": options})
    async with app.run_test(size=(100, 20)) as pilot:
        while app._shown is None:
            await pilot.pause(0.1)
        await pilot.press("3", "1")
        await pilot.pause(0.5)
        picture = app.export_screenshot(title="gw top")
        await app.action_quit()
    return re.sub(r"terminal-\d+", "top", picture)


def save(name: str, picture: str) -> None:
    # The reader's own monospaced font will do.
    (HERE / name).write_text(re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL))


with Server() as server, psycopg.connect(server.dsn(), autocommit=True) as conn:
    for statement in SETUP.split(";\n"):
        conn.execute(statement.encode() or "select")
    save("top.svg", asyncio.run(screen(server.dsn())))
    printed = io.StringIO()
    with redirect_stdout(printed):
        main(["explain", "3", "--dsn", server.dsn()])
    draw("explain.svg", "gw explain 3", f"$ gw explain 3\n{printed.getvalue()}")
