"""The sub-commands of gw that fill, show and change the queue, on a real server."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from pathlib import Path

import pytest
from graphile_worker.cli.flags import commands_of
from graphile_worker.gw import values
from graphile_worker.gw.cli import COMMANDS, build_parser
from graphile_worker.worker.options import WorkerOptions
from support.pg import Database
from support.twins import without_twin

from gw.program import answer, gw, program, said
from gw.rows import LOCK, add

pytestmark = pytest.mark.majors(18)


@pytest.mark.majors(18)
def test_a_life_by_the_command_line(db: Database) -> None:
    env = {"GW_KEY": "welcome ann"}
    text = program(
        db, "add", "send_email", '{"to": "ann@example.org", "n": 1.10}', "--queue", "mails", "--run-at",
        "1h", "--priority", "-3", "--max-attempts", "2", "--flag", "slow", "--flag", "eu", env=env,
    )  # fmt: skip
    assert text == "Added job 1 for send_email.\n"
    assert (
        db.value("select payload::text from graphile_worker._private_jobs")
        == '{"to": "ann@example.org", "n": 1.10}'
    )
    assert "change 1" in program(db, "add", "send_email", "-", stdin="[1, 2]", env=env)
    assert "send_email" in program(db, "jobs")
    (job,) = json.loads(program(db, "jobs", "--json", "--state", "ready"))
    assert (job["key"], job["payload"], job["state"]) == ("welcome ann", [1, 2], "ready")
    assert "welcome ann" in program(db, "job", "1")
    assert "welcome ann" in program(db, "job", env=env)
    assert program(db, "fail", "1", "--message", "gone") == "Changed 1 job: 1.\n"
    assert "gone" in program(db, "explain", "1")
    assert program(db, "retry", "1") == "Changed 1 job: 1.\n"
    assert program(db, "reschedule", "1", "--run-at", "2d") == "Changed 1 job: 1.\n"
    assert "mails" in program(db, "queues")
    assert "ready" in program(db, "stats")
    assert program(db, "complete", "1") == "Changed 1 job: 1.\n"
    assert "no job 1:" in program(db, "job", "1", code=1)
    assert program(db, "cleanup").startswith("Removed 0 failed jobs, the names of 1 queue")
    assert program(db, "doctor", env={"GW_CHECK": "dead-locks,drift"}) == "Nothing is wrong.\n"
    assert program(db, "unlock", "--dead", "--queues") == "Nothing to unlock.\n"
    assert program(db, "top", "--once").startswith("ready")


def test_many_jobs_are_added_from_lines_all_or_none(db: Database) -> None:
    lines = "".join(f'{{"n": {n}}}\n' for n in range(3)) + "\n"
    assert json.loads(gw(db, "add", "t", "--lines", "--json", stdin=lines)) == {"ids": [1, 2, 3]}
    assert db.column("select payload ->> 'n' from graphile_worker._private_jobs order by id") == [
        "0",
        "1",
        "2",
    ]
    assert "line 2 '{' is no JSON" in gw(db, "add", "t", "--lines", stdin="{}\n{\n", code=1)
    assert "leave --key out" in gw(db, "add", "t", "--lines", "--key", "k", code=1)
    assert "leave PAYLOAD out" in gw(db, "add", "t", "{}", "--lines", code=1)
    assert len(answer(db, "jobs")) == 3


@pytest.mark.parametrize("payload", ["{to: 1}", "", "NaN", '"' + "\\u0000" + '"', "[" * 100_000])
def test_a_payload_that_is_no_json_is_named_and_not_added(db: Database, payload: str) -> None:
    _, err = said(db, "add", "t", payload, code=1)
    assert err.startswith("gw: payload")
    assert answer(db, "jobs") == []


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["job", "x1"], "'x1' is not a job id"),
        (["jobs", "--limit", "0"], "'0' is out of range: use 1 to 10000"),
        (["jobs", "--state", "done"], "'done' is none of ready"),
        (["add", "t", "--run-at", "2030-01-01T08:00"], "has no time zone"),
        (["add", "t", "--run-at", "tomorrow"], "'tomorrow' is not a time"),
        (["cleanup", "failed-jobs", "--older-than", "30 days"], "'30 days' is not a duration"),
        (["stats", "--timeout", "-1"], "'-1' is not a positive number of seconds"),
        (["stats", "--timeout", "nan"], "'nan' is not a positive number of seconds"),
        (["run", "--concurrency", "many"], "'many' is out of range"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_used_is_named_with_the_remedy(
    args: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        build_parser().parse_args(args)
    assert named in capsys.readouterr().err


def test_variables_are_checked_like_flags_and_lists_have_commas(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in ("a", "b", "c"):
        add(db, task)
    monkeypatch.setenv("GW_TASK", "a,b")
    assert [job["task_identifier"] for job in answer(db, "jobs")] == ["a", "b"]
    flags = ["--task", "b", "--task", "c"]  # those that are given win
    assert [job["task_identifier"] for job in answer(db, "jobs", *flags)] == ["b", "c"]
    assert "'done' is none of" in gw(db, "jobs", code=2, env={"GW_STATE": "ready,done"})


def test_every_flag_has_a_twin_in_the_environment() -> None:
    commands = commands_of(build_parser())
    selects = {"task", "queue", "state", "yes"}  # a variable must not choose what is changed
    assert without_twin(commands) == {
        *((name, flag) for name in ("retry", "fail", "complete", "reschedule", "discard") for flag in selects),
        *(("cancel", flag) for flag in (*selects, "key")), ("limit", "remove"),
        ("retry", "all_failed"), ("discard", "all_failed"), ("remove", "key"), ("unlock", "force"), ("cleanup", "yes"),
        ("doctor", "fix"),
        ("import", "name"),
        ("import", "task"),
        ("import", "yes"),
    }  # fmt: skip
    assert all(
        "--json" in p._option_string_actions
        for n, p in commands.items()
        if n not in ("run", "ui", "mcp", "completion")
    )


def test_the_flags_of_run_are_settings_of_a_worker() -> None:
    from graphile_worker.gw.run.settings import settings

    options = build_parser().parse_args(
        ["run", "tasks.py", "-c", "3", "--no-listen", "--grace", "0", "--forbidden-flags", "slow"]
    )
    found = WorkerOptions(**settings(options))
    assert (found.concurrency, found.listen, found.grace) == (3, False, 0.0)
    assert found.forbidden_flags == ["slow"]
    assert (found.poll_interval, options.tasks) == (WorkerOptions().poll_interval, ["tasks.py"])


def test_jobs_are_read_on_from_an_id(db: Database) -> None:
    ids = [add(db) for _ in range(5)]
    out, _ = said(db, "jobs", "--limit", 2)
    assert f"--after {ids[1]}" in out
    assert [job["id"] for job in answer(db, "jobs", "--after", ids[1])] == ids[2:]


def test_queues_and_their_holders_are_shown(db: Database) -> None:
    waiting, running = add(db, queue="q"), add(db, queue="[red]busy")
    db.rows("select graphile_worker.get_jobs('w1', 1)")
    db.rows("select graphile_worker.return_jobs('w1', array[%s]::bigint[])", waiting)
    db.rows("select graphile_worker.get_jobs('w1', 2)")
    db.rows(
        "update graphile_worker._private_job_queues set locked_at = null, locked_by = null where queue_name = 'q'"
    )
    db.rows(
        "update graphile_worker._private_jobs set locked_at = null, locked_by = null where id = %s",
        waiting,
    )
    rows = {row["queue_name"]: row for row in answer(db, "queues")}
    assert (rows["q"]["ready"], rows["q"]["locked_by"]) == (1, None)
    assert (rows["[red]busy"]["locked_by"], rows["[red]busy"]["running_job"]) == ("w1", running)
    (locked,) = answer(db, "queues", "--locked")
    assert locked["queue_name"] == "[red]busy"
    assert "[red]busy" in said(db, "queues")[0]  # no markup
    assert [row["queue_name"] for row in answer(db, "queues", "--queue", "q")] == ["q"]


def test_a_table_without_rich_names_the_extra_and_json_works(db: Database, tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("raise ImportError('no rich')")
    env = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    for command in ("jobs", "queues", "stats", "top"):
        err = program(db, command, code=1, env=env)
        assert "pip install 'graphile-worker[cli]'" in err
        assert "because: no rich" in err
    for command in ("jobs", "queues", "stats"):
        json.loads(program(db, command, "--json", env=env))
    program(db, "add", "t", env=env)


def test_errors_are_one_paragraph_and_tracebacks_only_with_v(
    db: Database, empty_db: Database
) -> None:
    err = gw(empty_db, "jobs", code=1)
    assert err.startswith(
        "gw: the schema graphile_worker of this database does not exist: run `gw-install install`"
    )
    assert "Traceback" not in err
    assert "Traceback" in gw(empty_db, "jobs", "-v", code=1)
    err = gw(db, "jobs", "--dsn", "host=127.0.0.1 port=1", code=1)
    assert "cannot connect" in err
    assert "no job with the key 'x'" in gw(db, "job", "--key", "x", code=1)
    assert "say which job" in gw(db, "job", code=1)


@pytest.mark.majors(18)
def test_a_role_without_rights_is_told_which_it_lacks(db: Database) -> None:
    role = f"role_{db.name[3:]}"
    db.rows(f"create role {role} login")
    try:
        dsn = ("--dsn", f"{db.dsn} user={role}")
        db.rows("select graphile_worker.grant_access(%s, 'enqueue')", role)
        add(db)
        assert "Added" in gw(db, "add", "t", *dsn)
        assert f"gw-install grant {role} observe" in gw(db, "stats", *dsn, code=1)
        assert "needs the access level admin" in gw(db, "jobs", *dsn, code=1)
        db.rows("select graphile_worker.grant_access(%s, 'observe')", role)
        for command in (["stats"], ["queues"], ["explain", "1"], ["top", "--once"]):
            gw(db, *command, *dsn)
        found = json.loads(gw(db, "doctor", "--json", *dsn, code=3))
        assert {one["check"] for one in found["findings"]} == {"settings"}
        assert {"drift", "old-transactions", "sequences"} <= set(found["skipped"])
        assert "needs the access level admin" in gw(db, "retry", "1", *dsn, code=1)
    finally:
        db.rows(f"drop owned by {role}")
        db.rows(f"drop role {role}")


def test_a_query_that_takes_too_long_ends_and_nothing_is_changed(db: Database) -> None:
    job = add(db)
    holder = db.connect(autocommit=False)
    holder.execute("select from graphile_worker._private_jobs for update")
    for command in (["complete", job], ["unlock", "x"]):
        if command[0] == "complete":
            err = said(db, *command, "--timeout", "0.2", code=4)[1]
            assert "give it more with --timeout" in err
    holder.execute("lock table graphile_worker._private_jobs")
    for name in ("stats", "jobs", "top"):
        more = ["--once"] if name == "top" else []
        said(db, name, *more, "--timeout", "0.2", "--json", code=4)
    holder.rollback()
    assert [one["id"] for one in answer(db, "jobs")] == [job]


def test_control_characters_do_not_reach_the_terminal(db: Database) -> None:
    task = "evil\x1b[2J\n"
    job = add(db, task, queue="q\x1b]0;title\x07")
    db.rows(LOCK, "w\x1b[31m", job)
    for command in (
        ["jobs"],
        ["job", job],
        ["queues"],
        ["stats"],
        ["explain", job],
        ["top", "--once"],
    ):
        out, _ = said(db, *command)
        assert "\x1b" not in out
        assert "\\x1b" in out


def test_stats_count_and_tell_the_pace(db: Database) -> None:
    db.rows("select graphile_worker.heartbeat('w1', array['a'], '{\"host\": \"h\", \"pid\": 7}')")
    for task in ("a", "a", "b"):
        add(db, task, queue=f"q{task}")
    db.rows("select graphile_worker.get_jobs('node-1', 1)")
    found = answer(db, "stats", "--interval", "0.1")
    assert (found["ready"], found["running"], found["failed"]) == (2, 1, 0)
    assert {row["name"]: row["ready"] + row["running"] for row in found["tasks"]} == {
        "a": 2,
        "b": 1,
    }
    assert {row["name"] for row in found["queues"]} == {"qa", "qb"}
    (worker,) = found["workers"]
    assert (worker["worker_id"], worker["is_alive"], worker["details"]["pid"]) == ("w1", True, 7)
    (other,) = found["unseen"]
    assert (other["worker_id"], other["jobs"]) == ("node-1", 1)
    assert found["deleted_per_second"] >= 0
    assert found["oldest_due_seconds"] >= 0
    text, _ = said(db, "stats", "--interval", "0.1")
    assert all(word in text for word in ("added/s", "node-1", "unseen", "alive", "qb"))


def test_durations_and_times_are_read_and_shown() -> None:
    assert values.duration("1h30m").total_seconds() == 5400
    assert values.span(values.duration("1.5d")) == "1 d 12 h"
    assert [values.span(n) for n in (0.2, 59, 60, 3600, 86460)] == [
        "0 s",
        "59 s",
        "1 min",
        "1 h",
        "1 d",
    ]
    assert str(values.moment("2030-01-31T08:00:00Z")) == "2030-01-31 08:00:00+00:00"
    with pytest.raises(argparse.ArgumentTypeError, match="too long"):
        values.duration("9" * 30 + "w")


def test_every_command_is_in_the_guide_and_its_commands_are_understood() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "gw.md").read_text()
    shown = re.findall(r"(?m)^(?:printf .* \| )?gw (.*)$", guide)
    assert len(shown) > 15
    for line in shown:
        build_parser().parse_args(shlex.split(line, comments=True))
    assert [name for name in COMMANDS if f"gw {name}" not in guide] == []
