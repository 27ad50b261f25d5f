"""A dashboard of a test's database, asked as a browser or a script would."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from graphile_worker import web
from sql.workers.heartbeats import ready
from support.pg import Database

G = "graphile_worker"
HOSTILE = "<script>window.broken = true</script>"


class Site:
    """Sends requests to a dashboard in this process; keeps cookies."""

    def __init__(self, app: Any, client: str = "127.0.0.1", host: str = "localhost") -> None:
        self._app, self._client, self._host = app, client, host
        self.cookies = httpx.Cookies()

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, client=(self._client, 1))
            async with httpx.AsyncClient(
                transport=transport, base_url=f"http://{self._host}", cookies=self.cookies
            ) as http:
                found = await http.request(method, path, **options)
                self.cookies = http.cookies
                return found

        return asyncio.run(send())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._send("GET", path, **options)

    def page(self, path: str, **options: Any) -> str:
        found = self.get(path, **options)
        assert found.status_code == 200, found.text
        return found.text

    def post(self, path: str, csrf: bool = True, **options: Any) -> httpx.Response:
        data = dict(options.pop("data", {}))
        if csrf:
            data["csrf"] = self.cookies.get("gw_csrf", "")
        return self._send("POST", path, data=data, **options)

    def act(self, path: str, **fields: str) -> str:
        """Confirm an action as its page asks for it; return what the next page says."""
        asked = self.page(path)
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', asked))
        done = self.post(path.partition("?")[0], csrf=False, data={**hidden, **fields})
        assert done.status_code == 303, done.text
        said = re.search(r'class="did" role="status">([^<]*)<', self.page(done.headers["location"]))
        assert said, "the next page says what was done"
        return said[1]


def site(db: Database, role: str = "postgres", **options: Any) -> Site:
    return Site(web.app(f"{db.dsn} user={role}", **options))


@contextmanager
def role(db: Database, level: str) -> Iterator[str]:
    """A role of a level of access."""
    name = f"ui_{level}_{db.name}"
    db.rows(f"create role {name} login")
    try:
        db.rows(f"select {G}.grant_access(%s, %s)", name, level)
        yield name
    finally:
        db.rows(f"drop owned by {name}")
        db.rows(f"drop role {name}")


def add(db: Database, task: str = "t", payload: Any = None, **options: Any) -> int:
    names = "".join(f", {name} := %s" for name in options)
    sql = f"select (graphile_worker.add_job(%s, %s::json{names})).id"
    return int(db.value(sql, task, json.dumps(payload or {}), *options.values()))


def claim(db: Database, worker: str = "w", n: int = 1) -> list[int]:
    db.rows(f"select {G}.heartbeat(%s)", worker)
    return db.column(f"select id from {G}.get_jobs(%s, %s)", worker, n)


def silence(db: Database) -> None:
    """Let all workers be presumed dead."""
    ready(db)
    db.rows(f"update {G}._private_heartbeats set heartbeat_at = now() - interval '1 hour'")


def fail(db: Database, job: int, error: str, worker: str = "w") -> None:
    failures = json.dumps([{"id": job, "error": error, "final": True}])
    db.rows(f"select {G}.fail_jobs(%s, %s)", worker, failures)


def fill(db: Database) -> dict[str, int]:
    """A job in each state, and something on each page."""
    db.rows(f"select {G}.keep_history(payloads := true)")
    jobs = {}
    jobs["failed"] = add(db, "bad", {"html": HOSTILE, "password": "hunter2"}, max_attempts=1)
    assert claim(db) == [jobs["failed"]]
    fail(db, jobs["failed"], f"Traceback (most recent call last):\n  x\nValueError: {HOSTILE} 77")
    jobs["done"] = add(db, "good", {"n": 2**63 + 1})
    assert claim(db) == [jobs["done"]]
    db.rows(f"select {G}.finish_jobs('w', array[%s::bigint])", jobs["done"])
    jobs["running"] = add(db, "slow", queue_name="q")
    assert claim(db) == [jobs["running"]]
    db.rows(f"select {G}.report_progress('w', %s, 0.4, '4 of 10')", jobs["running"])
    jobs["ready"] = add(db, "t", queue_name="q", job_key="the key")
    jobs["scheduled"] = add(db, "t", run_at="2100-01-01T00:00:00Z")
    db.rows(f"select {G}.pause_queue('elsewhere', null, %s)", HOSTILE)
    db.rows(f"select {G}.set_limit('task', 't', 5)")
    db.rows(f"select {G}.schedule('nightly', 'good', '0 3 * * *')")
    db.rows(f"select {G}.register_crontabs(array['from code'])")
    return jobs
