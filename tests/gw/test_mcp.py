"""gw mcp, asked by the official client over stdin and stdout."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from graphile_worker.gw.cli import main
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from support.command_line import run_main
from support.pg import Database

from gw.ui.site import fill, role, silence

pytestmark = pytest.mark.majors(13, 18)

SECRET = "4929-8812"
#: All that a call could change: rows, sequences, settings of the schema.
CHANGED = """
    select (select md5(string_agg(j::text, ' ' order by id)) from graphile_worker._private_jobs as j),
      (select last_value from graphile_worker.jobs_id_seq1), (select count(*) from graphile_worker.workers)
"""


def ask(dsn: str, asks: Callable[[Client], Awaitable[Any]]) -> Any:
    async def connected() -> Any:
        command = [*["-W", "error", "-m", "graphile_worker.gw.cli", "mcp", "--dsn"], dsn]
        async with Client(
            StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))
        ) as client:
            return await asks(client)

    return asyncio.run(connected())


def value_of(result: Any) -> Any:
    assert not result.is_error, result.content
    return json.loads(result.content[0].text)


def test_a_role_that_observes_reads_everything_but_payloads_and_changes_nothing(
    db: Database,
) -> None:
    fill(db)
    silence(db)
    db.rows(
        "select graphile_worker.add_job('charge', json_build_object('card', %s::text), run_at => now() + '1h')",
        SECRET,
    )
    before = db.rows(CHANGED)

    async def every(client: Client) -> dict[str, Any]:
        tools = (await client.list_tools()).tools
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
        assert all(tool.description for tool in tools)
        found = {}
        for tool in tools:
            needs_job = "job_id" in tool.input_schema["properties"]
            arguments = {"job_id": 1} if needs_job else {}
            found[tool.name] = value_of(await client.call_tool(tool.name, arguments))
        return found

    with role(db, "observe") as observer:
        found = ask(f"{db.dsn} user={observer}", every)
    assert db.rows(CHANGED) == before
    assert SECRET not in json.dumps(found)
    totals = found["overview"]["totals"]
    states = {state: totals[state] for state in ("ready", "scheduled", "running", "failed")}
    assert states == {"ready": 1, "scheduled": 2, "running": 1, "failed": 1}
    assert found["jobs"]["count"] == len(found["jobs"]["jobs"])
    assert found["job"]["job"]["id"] == found["explain_job"]["id"] == 1
    assert found["errors"]["groups"]
    assert found["check"]["findings"]


def test_what_is_asked_wrongly_is_told_with_the_remedy(db: Database) -> None:
    async def wrongly(client: Client) -> list[Any]:
        return [
            await client.call_tool(name, arguments)
            for name, arguments in (
                ("job", {}),
                ("job", {"job_id": 7}),
                ("explain_job", {"job_id": 7, "key": "k"}),
                ("jobs", {"state": "sleeping"}),
                ("errors", {"limit": 10**9}),
            )
        ]

    texts = []
    for result in ask(db.dsn, wrongly):
        assert result.is_error
        texts.append(result.content[0].text)
    assert "say which job" in texts[0]
    assert "no job 7" in texts[1]
    assert "say which job" in texts[2]
    assert "'ready', 'scheduled', 'running' or 'failed'" in texts[3]
    assert "200" in texts[4]


def test_a_database_without_a_queue_is_told_before_anything_is_served(db: Database) -> None:
    _, error = run_main(main, ["mcp", "--dsn", db.dsn, "--schema", "absent"], code=1, env={})
    assert "gw-install" in error
