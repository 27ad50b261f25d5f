"""gw tasks: the schemas of payloads go from the code to the database, and a deploy can be checked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from graphile_worker.worker import Context
from graphile_worker.worker.executors.payload_schemas import payload_schema
from support.pg import Database

from gw.program import answer, gw

pytestmark = pytest.mark.majors(13, 18)

CODE = """
from datetime import datetime
from graphile_worker import Tasks
from graphile_worker.worker import Context
from pydantic import BaseModel

class Address(BaseModel):
    email: str
    name: str | None = None

tasks = Tasks()

@tasks.task("send_email")
async def send_email(to: Address, subject: str, context: Context, retries: int = 0) -> None: ...

@tasks.task("plain")
def plain(anything): ...
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "published_tasks.py"
    path.write_text(CODE)
    before = list(sys.path)
    yield path
    sys.path[:] = before
    sys.modules.pop("published_tasks", None)


def changed(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))
    sys.modules.pop("published_tasks", None)


def test_schemas_are_published_and_checked(db: Database, module: Path) -> None:
    publish = ("tasks", "publish", "published_tasks")
    told = answer(db, *publish, "--check", code=1)
    assert told["changed"] == ["plain", "send_email"]
    assert db.rows("select task from graphile_worker.payload_schemas") == []
    assert "send_email: published" in gw(db, *publish)
    assert gw(db, *publish, "--check") == "2 tasks: the database has the schemas of the code.\n"
    (plain, mail) = answer(db, "tasks", "list")
    assert plain["schema"]["properties"] == {"anything": {}}
    assert mail["schema"]["required"] == ["subject", "to"]
    assert "context" not in mail["schema"]["properties"]
    good = '{"to": {"email": "ann@example.org"}, "subject": "hi"}'
    db.rows("select graphile_worker.add_job('send_email', %s::text::json)", good)
    for bad, said in (
        ('{"to": {"email": 3}, "subject": "hi"}', "/to/email is of type number, not string"),
        ('{"to": {"email": "x"}}', 'lacks the property "subject"'),
        ('{"to": {"email": "x"}, "subject": "a", "retries": "b"}', "/retries is of type string"),
    ):
        with pytest.raises(Exception, match=said):
            db.rows("select graphile_worker.add_job('send_email', %s::text::json)", bad)
    # the code changes, and the check says who would be refused
    changed(module, "subject: str, ", "subject: str, sender: str, ")
    told = answer(db, *publish, "--check", code=1)
    assert told["refuses"] == {"send_email": ["those that leave out 'sender'"]}
    told = answer(db, *publish, "--against-backlog", code=1)
    assert [problem["problem"].strip() for problem in told["unfit"]["send_email"]] == [
        'lacks the property "sender"'
    ]
    assert answer(db, *publish, "--check", code=1)["changed"] == ["send_email"], (
        "nothing was changed"
    )
    assert "refuses those that leave out 'sender'" in gw(db, *publish)
    assert gw(db, *publish, "--on-invalid", "warn").count("published") == 2
    changed(module, "retries: int = 0", "retries: str = ''")
    told = answer(db, *publish, "--on-invalid", "warn", "--check", code=1)
    assert told["refuses"]["send_email"] == ["those whose 'retries' was of another type"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["publish"], "needs TASKS"),
        (["list", "x"], "takes no TASKS"),
        (["publish", "no_such_module"], "no module or folder"),
    ],
)
def test_what_is_missing_is_named(db: Database, args: list[str], said: str) -> None:
    assert said in gw(db, "tasks", *args, code=1)


def test_a_plain_function_has_a_schema_if_its_payload_has_a_type() -> None:
    def typed(payload: list[int], context: Context) -> None: ...

    def untyped(payload, context): ...  # type: ignore[no-untyped-def]

    # each element of a batch is checked
    assert payload_schema("a", typed) == {"type": "integer"}
    assert payload_schema("a", untyped) is None
