"""The program of docs/exactly-once.md: Node completes a job in the transaction of its own writes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from support.pg import NODE, SERVERS, Database, run

pytestmark = pytest.mark.majors(18)

PAGE = Path(__file__).parents[2] / "docs" / "exactly-once.md"
(PROGRAM,) = re.findall(r"(?ms)^```js\n(.*?)^```$", PAGE.read_text())


@pytest.mark.parametrize("is_held", [True, False], ids=["held", "lost"])
def test_the_write_and_the_end_of_the_job_are_one(
    db: Database, tmp_path: Path, is_held: bool
) -> None:
    (tmp_path / "pay.mjs").write_text(PROGRAM)
    (tmp_path / "node_modules").symlink_to(SERVERS)
    db.rows("create table orders (id int primary key, paid boolean not null default false)")
    db.rows("insert into orders values (7)")
    db.rows("select graphile_worker.keep_history()")
    job = db.value("select id from graphile_worker.add_job('pay', '{\"order\": 7}')")
    if not is_held:  # another worker gets the job while this one pays
        db.rows(
            "create function lose() returns trigger language plpgsql as $$ begin"
            " update graphile_worker._private_jobs set locked_by = 'another'; return new; end $$"
        )
        db.rows("create trigger lose before update on orders for each row execute function lose()")
    info = db.connect().info
    env = {
        "PGHOST": info.host, "PGPORT": str(info.port), "PGDATABASE": db.name, "PGUSER": "postgres",
    }  # fmt: skip
    printed = run((NODE, "pay.mjs"), cwd=tmp_path, env={**os.environ, **env})
    assert printed == f"job {job}: {'paid' if is_held else 'not ours'}\n"
    assert db.value("select paid from orders") is is_held
    assert db.value("select count(*) from graphile_worker.jobs") == int(not is_held)
    results = db.column("select result from graphile_worker.job_history")
    assert results == ([{"paid": True}] if is_held else [])
