"""What each page shows, to whom."""

from __future__ import annotations

import filecmp
import json
import threading
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from graphile_worker.gw import reads
from graphile_worker.gw.queue import Queue
from graphile_worker.gw.ui.redaction import HIDDEN, Redaction
from graphile_worker.gw.ui.site import HERE
from hypothesis import given
from hypothesis import strategies as st
from support.pg import SERVERS, Database, wait_for

from gw.ui.site import HOSTILE, G, add, claim, fill, role, silence, site

PAGES = ("", "jobs", "failed", "queues", "workers", "schedules", "doctor")


@pytest.mark.majors(13, 18)
@pytest.mark.parametrize("level", ["admin", "observe"])
def test_every_page_is_shown_to_those_who_act_and_those_who_observe(
    db: Database, level: str
) -> None:
    jobs = fill(db)
    with role(db, level) as name:
        here = site(db, name)
        for page in (*PAGES, *(f"jobs/{job}" for job in jobs.values())):
            text = here.page(f"/queue/{page}")
            assert HOSTILE not in text, page
            assert "hunter2" not in text, page
            assert ("/do/" in text.replace("/do/add", "")) <= (level == "admin"), page
        overview = here.page("/queue/")
        assert f'href="/queue/jobs/{jobs["failed"]}">ValueError: ' in overview
        for state in ("ready", "scheduled", "running", "failed"):
            assert f'id="total-{state}"' in overview
        failed = here.page(f"/queue/jobs/{jobs['failed']}")
        assert "&lt;script&gt;" in failed
        assert "Traceback (most recent call last)" in failed
        done = here.page(f"/queue/jobs/{jobs['done']}")
        if level == "admin":
            assert str(2**63 + 1) in done, "no digit is lost"
            assert HIDDEN in failed
        else:
            assert "may not read payloads" in failed
        assert "4 of 10" in here.page(f"/queue/jobs/{jobs['running']}")
        assert "4 of 10" in here.page("/queue/workers")
        assert "Its queue" in here.page(f"/queue/jobs/{jobs['ready']}")


@pytest.mark.majors(18)
def test_lists_go_by_filters_in_the_address_and_from_page_to_page(db: Database) -> None:
    jobs = [add(db, f"task {n % 2}", job_key=f"key {n}") for n in range(2 * reads.PAGE + 10)]
    here = site(db)
    seen, path = [], "/queue/jobs?task=task+1"
    while path:
        text = here.page(path)
        assert "55 jobs" in text
        seen += [job for job in jobs if f'id="job-{job}"' in text]
        _, _, rest = text.partition('rel="next" href="')
        path = rest.partition('"')[0].replace("&amp;", "&")
    assert sorted(seen) == jobs[1::2]
    found = here.get("/queue/jobs?find=key+7")
    assert found.headers["location"] == f"/queue/jobs/{jobs[7]}"
    assert here.get("/queue/jobs?find=nosuch").status_code == 409
    assert "2 jobs" not in here.page("/queue/jobs?key=key+10")
    assert "0 jobs" in here.page("/queue/jobs?state=failed")


@pytest.mark.majors(18)
def test_what_is_not_there_is_said(db: Database) -> None:
    here = site(db)
    for path in ("/queue/jobs/99", "/queue/jobs/99999999999999999999", "/nosuch/", "/queue/do/x"):
        found = here.get(path)
        assert found.status_code == 404, path
        assert "There is no" in found.text
    assert here.get("/").headers["location"] == "/queue/"
    assert here.get("/healthz").text == "ok\n"


@pytest.mark.majors(18)
def test_a_database_that_is_away_is_said(db: Database) -> None:
    from graphile_worker import web

    from gw.ui.site import Site

    here = Site(web.app({"here": db.dsn, "away": "host=127.0.0.1 port=1"}))
    assert here.get("/away/").status_code == 503
    assert "cannot connect to away" in here.get("/away/").text.lower()
    assert "away" in here.page("/here/"), "the way to the other database"
    assert here.get("/healthz").status_code == 503


@pytest.mark.majors(13, 18)
def test_counts_of_many_jobs_are_estimates_that_say_so_and_failed_ones_are_counted(
    db: Database,
) -> None:
    add(db, "many")
    db.rows(
        f"insert into {G}._private_jobs (task_id, payload, attempts, last_error)"
        " select 1, json_build_object('text', repeat('x', 600)), case when n % 4000 = 0 then 25 else 0 end,"
        " case when n % 4000 = 0 then 'boom ' || n end from generate_series(1, 12000) as n"
    )
    db.rows(f"analyze {G}._private_jobs")
    rows = db.rows(f"select state, sum(weight), max(weight) from {G}.job_sample group by state")
    counts = {state: total for state, total, _ in rows}
    assert rows[0][2] > 1
    assert 6000 < counts["ready"] < 18000
    here = site(db)
    assert "about " in here.page("/queue/")
    # What takes long is read in the background, and is there as soon as it is known.
    wait_for(lambda: 'id="total-failed" class="bad">3<' in here.page("/queue/"))
    wait_for(lambda: "boom N" in here.page("/queue/"))
    wait_for(lambda: "3 jobs failed permanently" in here.page("/queue/failed"))


def test_what_cannot_be_read_in_time_is_said_to_be_on_its_way(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(db)
    monkeypatch.setattr(Queue, "rows_within", lambda *args, **values: None)
    read, asked = threading.Event(), list[str]()

    def slowly(read_now: Any) -> Any:
        def read_later(queue: Queue) -> Any:
            read.wait(60)
            return read_now(queue)

        return read_later

    get = reads.Cache.get

    def noted(self: reads.Cache, name: str, read_now: Any) -> Any:
        asked.append(name)
        return get(self, name, slowly(read_now))

    monkeypatch.setattr(reads.Cache, "get", noted)
    here = site(db)
    assert "being read" in here.page("/queue/failed")
    assert "being read" in here.page("/queue/failed")
    read.set()
    wait_for(lambda: "being read" not in here.page("/queue/failed"))
    assert "ValueError" in here.page("/queue/failed")
    assert asked


@pytest.mark.slow
@pytest.mark.majors(18)
def test_pages_of_five_million_jobs(db: Database, record_property: Any) -> None:
    for n in range(20):
        add(db, f"task {n}", queue_name=f"queue {n}")
    db.rows(
        f"insert into {G}._private_jobs (task_id, job_queue_id, run_at, attempts, last_error)"
        " select 1 + n % 20, case when n % 10 = 0 then 1 + n / 10 % 20 end,"
        " now() - n % 86400 * interval '1 s', case when n % 100000 = 0 then 25 else 0 end,"
        " case when n % 100000 = 0 then 'boom' end from generate_series(1, 5000000) as n"
    )
    db.rows(f"vacuum analyze {G}._private_jobs")
    here, took = site(db), dict[str, str]()

    def says(path: str, text: str) -> bool:
        return text in here.page(f"/queue/{path}")

    paths = (
        "",
        "",
        "jobs",
        "jobs?task=task+3",
        "jobs?state=failed",
        "jobs?task=no",
        "failed",
        "queues",
    )
    for path in (*paths, "jobs/1", "workers"):
        started = time.perf_counter()
        text = here.page(f"/queue/{path}")
        took[path] = f"{1000 * (time.perf_counter() - started):.0f} ms"
        if path in ("", "jobs", "jobs?task=task+3", "queues"):
            assert "about " in text
        if path in ("jobs?state=failed", "failed"):
            wait_for(partial(says, path, "50 jobs"))
    with psycopg.connect(db.dsn, autocommit=True) as conn:
        queue = Queue(conn)
        cache = reads.Cache(lambda: nullcontext(Queue(db.connect())))
        for name, filters in (
            ("all", reads.Filters()), ("a task", reads.Filters(task="task 3")),
            ("failed", reads.Filters(states=["failed"])),
        ):  # fmt: skip
            started = time.perf_counter()
            with queue.limited(read_only=True):
                reads.count(queue, filters, cache)
            took[f"count of {name}"] = f"{1000 * (time.perf_counter() - started):.0f} ms"
    record_property("five million jobs", took)


@pytest.mark.majors(18)
def test_a_search_among_many_stops_in_time_and_goes_on(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "WINDOW", 10)
    monkeypatch.setattr(reads, "SEARCH_SECONDS", 0)
    wanted = add(db, "rare")
    for _ in range(25):
        add(db, "common")
    here = site(db)
    pages, path = 0, "/queue/jobs?task=rare"
    while f'id="job-{wanted}"' not in (text := here.page(path)):
        assert "Search on" in text
        path = text.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
        pages += 1
    assert pages == 2


@pytest.mark.majors(18)
def test_silent_workers_and_those_without_heartbeats_are_told_apart(db: Database) -> None:
    add(db)
    add(db)
    claim(db, "silent")
    silence(db)
    db.column(f"select id from {G}.get_jobs('of node', 1)")
    text = site(db).page("/queue/workers")
    assert text.index("silent</span>") < text.index("no heartbeats</span>")
    assert "Unlock what dead workers hold" in text


def test_the_libraries_in_the_wheel_are_those_of_npm() -> None:
    shipped = HERE / "static" / "vendor"
    sources = {
        "htmx.min.js": "htmx.org/dist/htmx.min.js", "htmx.LICENSE": "htmx.org/LICENSE",
        "idiomorph-ext.min.js": "idiomorph/dist/idiomorph-ext.min.js",
        "idiomorph.LICENSE": "idiomorph/LICENSE", "uPlot.LICENSE": "uplot/LICENSE",
        "uPlot.iife.min.js": "uplot/dist/uPlot.iife.min.js",
        "uPlot.min.css": "uplot/dist/uPlot.min.css",
    }  # fmt: skip
    assert {path.name for path in shipped.iterdir()} == set(sources)
    for name, source in sources.items():
        assert filecmp.cmp(shipped / name, Path(SERVERS) / source, shallow=False), name


_VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "Password", "card", "api_key"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_VALUES)
def test_hidden_keys_are_hidden_wherever_they_stand_and_nothing_else_changes(value: object) -> None:
    shown = Redaction(("*password*", "api_key")).shown("t", value)

    def check(before: object, after: object) -> None:
        if isinstance(before, dict) and isinstance(after, dict):
            assert before.keys() == after.keys()
            for key in before:
                if key in ("Password", "api_key"):
                    assert after[key] == HIDDEN
                else:
                    check(before[key], after[key])
        elif isinstance(before, list) and isinstance(after, list):
            for one, other in zip(before, after, strict=True):
                check(one, other)
        else:
            assert before == after

    check(value, shown)


def test_a_path_and_a_hook_hide_as_well_and_a_hook_that_breaks_shows_nothing() -> None:
    shown = Redaction(("user.*.number",), lambda task, value: {**value, "seen": task}).shown(
        "pay", {"user": {"card": {"number": 1, "kind": 2}}}
    )
    assert shown == {"user": {"card": {"number": HIDDEN, "kind": 2}}, "seen": "pay"}
    broken = Redaction((), lambda task, value: value["nosuch"]).shown("pay", {"secret": 1})
    assert "KeyError" in json.dumps(broken)
    assert "secret" not in json.dumps(broken)
