"""Draw the screens of docs/gw.md: `gw top` and `gw explain` on a private server, as SVG."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import psycopg
from graphile_worker.gw import stats
from graphile_worker.gw.cli import main
from graphile_worker.gw.queue import Queue
from graphile_worker.gw.top import frame
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
    picture = console.export_svg(title=title, unique_id=name.partition(".")[0])
    # The reader's own monospaced font will do.
    (HERE / name).write_text(re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL))


with Server() as server, psycopg.connect(server.dsn(), autocommit=True) as conn:
    for statement in SETUP.split(";\n"):
        conn.execute(statement.encode() or "select")
    found = stats.read_stats(Queue(conn), 10)
    draw(
        "top.svg", "gw top", frame(found, {"added_per_second": 212.0, "deleted_per_second": 208.5})
    )
    printed = io.StringIO()
    with redirect_stdout(printed):
        main(["explain", "3", "--dsn", server.dsn()])
    draw("explain.svg", "gw explain 3", f"$ gw explain 3\n{printed.getvalue()}")
