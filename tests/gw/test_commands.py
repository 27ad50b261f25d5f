"""The sub-commands of gw that fill, show and change the queue, on a real server."""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from graphile_worker.cli.flags import commands_of
from graphile_worker.gw import values
from graphile_worker.gw.cli import COMMANDS, build_parser
from graphile_worker.worker.options import WorkerOptions
from support.pg import Database, wait_for
from support.twins import without_twin

from gw.program import answer, gw, program, said

pytestmark = pytest.mark.majors(18)

ADD = "select (graphile_worker.add_job(%s, queue_name => %s, job_key => %s)).id"
LOCK = "update graphile_worker._private_jobs set locked_at = now(), locked_by = %s, attempts = attempts + 1 where id = %s"
FAIL = "update graphile_worker._private_jobs set attempts = max_attempts, last_error = 'boom' where id = any (%s)"


def add(db: Database, task: str = "t", queue: str | None = None, key: str | None = None) -> int:
    return int(db.value(ADD, task, queue, key))


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
        *((name, flag) for name in ("retry", "fail", "complete", "reschedule") for flag in selects),
        ("retry", "all_failed"), ("remove", "key"), ("unlock", "force"), ("cleanup", "yes"),
        ("doctor", "fix"),
    }  # fmt: skip
    assert all("--json" in p._option_string_actions for n, p in commands.items() if n != "run")


def test_the_flags_of_run_are_settings_of_a_worker() -> None:
    from graphile_worker.gw.run.settings import settings

    options = build_parser().parse_args(
        ["run", "tasks.py", "-c", "3", "--no-listen", "--grace", "0", "--forbidden-flags", "slow"]
    )
    found = WorkerOptions(**settings(options))
    assert (found.concurrency, found.listen, found.grace) == (3, False, 0.0)
    assert found.forbidden_flags == ["slow"]
    assert (found.poll_interval, options.tasks) == (WorkerOptions().poll_interval, ["tasks.py"])


def test_running_and_absent_jobs_are_left_out_and_named(db: Database) -> None:
    running, waiting = add(db), add(db)
    db.rows(LOCK, "worker-x", running)
    for command in (
        ["retry"],
        ["fail"],
        ["reschedule", "--priority", "1"],
        ["complete"],
        ["remove"],
    ):
        out, err = said(db, command[0], running, waiting, 99, *command[1:], "--json", code=1)
        found = json.loads(out)
        gone = command[0] == "remove"
        assert found["changed"] == ([] if gone else [waiting])
        assert {one["id"] for one in found["left_out"]} == {
            running,
            99,
            *([waiting] if gone else []),
        }
        assert f"job {running} runs, by worker worker-x" in err
        assert "job 99 is not there" in err
    assert db.column("select id from graphile_worker.jobs") == [running]


def test_many_are_changed_once_somebody_agrees(db: Database) -> None:
    ids = [add(db, "mail", "q", key="k"), *(add(db, "mail") for _ in range(2)), add(db, "other")]
    db.rows(FAIL, [ids[0], ids[3]])
    waiting = db.rows("select * from graphile_worker.jobs where id = any (%s)", ids[1:3])
    _, err = said(db, "retry", "--all-failed", code=1)
    assert "2 jobs, id 1 to 4: retry: say --yes" in err
    assert answer(db, "retry", "--task", "mail", "--yes")["changed"] == [ids[0]]
    job = answer(db, "job", ids[0])
    assert (job["attempts"], job["key"], job["queue_name"], job["state"]) == (0, "k", "q", "ready")
    assert db.rows("select * from graphile_worker.jobs where id = any (%s)", ids[1:3]) == waiting
    assert answer(db, "fail", "--queue", "q", "--yes")["changed"] == [ids[0]]
    assert answer(db, "retry", "--all-failed", "--yes")["changed"] == [ids[0], ids[3]]
    assert answer(db, "reschedule", "--state", "ready", "--run-at", "1h", "--yes")["changed"] == ids
    assert answer(db, "complete", "--task", "mail", "--state", "failed", "--yes")["changed"] == []
    assert answer(db, "complete", "--task", "mail", "--yes")["changed"] == ids[:3]
    for args in (["retry"], ["retry", "1", "--task", "x"], ["complete", "1", "--state", "ready"]):
        assert "say which jobs" in said(db, *args, code=1)[1]
    assert "exclude each other" in said(db, "retry", "--all-failed", "--state", "ready", code=1)[1]
    assert "say what to change" in said(db, "reschedule", ids[3], code=1)[1]


def test_more_jobs_than_fit_one_transaction_are_changed(db: Database) -> None:
    db.rows("select count(graphile_worker.add_job('t')) from generate_series(1, 2500)")
    assert len(answer(db, "fail", "--task", "t", "--yes")["changed"]) == 2500
    assert len(answer(db, "retry", "--all-failed", "--yes")["changed"]) == 2500


def test_what_was_changed_before_others_were_in_the_way_is_told(db: Database) -> None:
    db.rows("select count(graphile_worker.add_job('t')) from generate_series(1, 1500)")
    holder = db.connect(autocommit=False)
    holder.execute("select from graphile_worker._private_jobs where id = 1500 for update")
    err = said(db, "fail", "--task", "t", "--yes", "--timeout", "1", code=4)[1]
    assert "1000 of 1500 jobs were changed, then: the server stopped a query" in err
    holder.rollback()
    assert len(answer(db, "jobs", "--state", "failed", "--limit", 2000)) == 1000


def test_a_terminal_is_asked(db: Database) -> None:
    db.rows(FAIL, [add(db)])
    for reply, failed in (("n", 1), ("y", 0)):
        outer, inner = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "graphile_worker.gw.cli", "retry", "--all-failed"], stdin=inner,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "GW_DSN": db.dsn},
        )  # fmt: skip
        os.write(outer, f"{reply}\n".encode())
        _, err = process.communicate(timeout=60)
        os.close(outer)
        os.close(inner)
        assert b"1 job, id 1 to 1: retry. Go on? [y/N]" in err
        assert process.returncode == failed
        assert db.value("select count(*) from graphile_worker.jobs where attempts > 0") == failed


def test_remove_takes_keys_and_a_running_job_is_not_tried_again(db: Database) -> None:
    job, running = add(db, key="a"), add(db, key="b")
    db.rows(LOCK, "w", running)
    out, err = said(db, "remove", "--key", "a", "--key", "b", "--key", "c", "--json", code=1)
    assert json.loads(out)["changed"] == [job, running]
    assert f"job {running} is running: it lost its key" in err
    assert "no job has the key c" in err
    assert db.rows("select id, key, attempts from graphile_worker.jobs") == [(running, None, 25)]
    assert "say which jobs" in said(db, "remove", code=1)[1]


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


def test_unlock_refuses_live_workers_and_unknown_names(db: Database) -> None:
    db.rows("select graphile_worker.heartbeat('alive-1')")
    for worker in ("alive-1", "node-1"):
        add(db)
        db.rows("select graphile_worker.get_jobs(%s, 1)", worker)
    held = "select locked_by from graphile_worker.jobs where locked_by is not null order by 1"
    assert "holds no job" in said(db, "unlock", "node-1", "nobody", code=1)[1]
    assert "is alive" in said(db, "unlock", "node-1", "alive-1", code=1)[1]
    assert db.column(held) == ["alive-1", "node-1"]
    assert answer(db, "unlock", "node-1")["workers"] == [
        {"worker_id": "node-1", "jobs": 1, "queues": 0}
    ]
    assert db.column(held) == ["alive-1"]
    assert answer(db, "unlock", "--dead", "--queues")["workers"] == []
    assert db.column(held) == ["alive-1"]
    said(db, "unlock", "alive-1", "--force")
    assert db.column(held) == []
    assert "say what to unlock" in said(db, "unlock", code=1)[1]


def test_cleanup_deletes_failed_jobs_once_somebody_agrees(db: Database) -> None:
    old, new = add(db), add(db)
    db.rows(FAIL, [old, new])
    db.rows("alter table graphile_worker._private_jobs disable trigger all")
    db.rows(
        "update graphile_worker._private_jobs set updated_at = now() - interval '31 days' where id = %s",
        old,
    )
    assert "2 jobs permanently failed" in said(db, "cleanup", "failed-jobs", code=1)[1]
    assert "'jobs' is unknown" in said(db, "cleanup", "jobs", code=1)[1]
    assert "--older-than is for failed-jobs" in said(db, "cleanup", "--older-than", "1d", code=1)[1]
    found = answer(db, "cleanup", "failed-jobs", "--older-than", "30d", "--yes")
    assert found == {"failed_jobs": 1, "queues": 0, "tasks": 0}
    assert answer(db, "cleanup", "failed-jobs", "tasks", "--yes", "--keep-task", "t")["tasks"] == 0


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
        found = json.loads(gw(db, "doctor", "--json", *dsn, code=0))
        assert found["findings"] == []
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


def test_top_goes_on_until_interrupted(db: Database) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "graphile_worker.gw.cli", "top", "--json", "--interval", "0.05"],
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
        [sys.executable, "-m", "graphile_worker.gw.cli", "top", "--interval", "0.05"], stdout=inner,
        stderr=subprocess.PIPE, env={**os.environ, "GW_DSN": db.dsn, "COLUMNS": "120", "LINES": "40", "TERM": "xterm"},
    )  # fmt: skip
    os.close(inner)
    seen = b""

    def shown(text: bytes) -> bool:
        nonlocal seen
        seen += os.read(outer, 4096)
        return text in seen

    wait_for(lambda: shown(b"a_task_to_see"))
    others = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'gw' and datname = current_database()"
    assert db.rows(others)
    wait_for(lambda: shown(b"trying again"))
    seen = b""
    wait_for(lambda: shown(b"a_task_to_see"))
    process.send_signal(2)
    wait_for(lambda: shown(b"\x1b[?1049l"))  # the terminal is as it was
    _, err = process.communicate(timeout=60)
    os.close(outer)
    assert (process.returncode, err) == (0, b"")


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
