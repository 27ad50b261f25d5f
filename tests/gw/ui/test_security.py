"""Who is let in, and whose requests act."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from graphile_worker import web
from graphile_worker.gw.cli import main
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount
from support.command_line import run_main
from support.pg import Database

from gw.ui.site import G, Site, add, fill, role, site

TOKEN = "a token of some length"
pytestmark = pytest.mark.majors(18)


def test_without_a_token_only_this_machine_is_served(db: Database) -> None:
    app = web.app(db.dsn)
    assert Site(app).get("/queue/").status_code == 200
    assert Site(app, client="::1", host="[::1]").get("/queue/").status_code == 200
    assert Site(app, client="192.0.2.7").get("/queue/").status_code == 403
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
        assert Site(app).get("/queue/", headers={header: "192.0.2.7"}).status_code == 403
    rebound = Site(app, host="attacker.example").get("/queue/")
    assert rebound.status_code == 400
    assert "--allowed-host" in rebound.text
    assert Site(web.app(db.dsn, token=TOKEN, hosts=["jobs.example"])).get("/").status_code == 400


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_no_other_address_is_listened_on_without_a_token(host: str) -> None:
    _, error = run_main(main, ["ui", "--host", host], code=1, env={"GW_TOKEN": ""})
    assert "set a token" in error


def test_a_token_is_asked_for_and_then_remembered(db: Database) -> None:
    here = Site(web.app(db.dsn, token=TOKEN), client="192.0.2.7", host="jobs.example")
    page = {"Accept": "text/html"}
    assert here.get("/queue/").status_code == 401
    asked = here.get("/queue/jobs?state=ready", headers=page)
    assert asked.headers["location"] == "/login?next=/queue/jobs%3Fstate%3Dready"
    assert "password" in here.page(asked.headers["location"])
    assert here.post("/login", data={"token": "wrong"}).status_code == 401
    assert here.post("/login", csrf=False, data={"token": TOKEN}).status_code == 401
    logged = here.post(asked.headers["location"], data={"token": TOKEN})
    assert logged.headers["location"] == "/queue/jobs?state=ready"
    cookie = logged.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert TOKEN not in cookie
    assert here.get("/queue/").status_code == 200
    for wanted in ("//evil.example", "/\\evil.example", "https://evil.example"):
        done = here.post(f"/login?next={wanted}", data={"token": TOKEN})
        assert done.headers["location"] == "/"
    here.post("/logout")
    assert here.get("/queue/").status_code == 401
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert here.get("/queue/", headers=bearer).status_code == 200
    assert here.get("/queue/", headers={"Authorization": "Bearer x"}).status_code == 401
    assert here.get("/healthz").status_code == 200


def test_a_short_token_and_no_database_are_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        web.app("", token="short")
    with pytest.raises(ValueError, match="at least one"):
        web.app({})


def test_the_mounting_application_says_who_it_is(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async def user(request: Request) -> str | None:
        return request.headers.get("x-user")

    outer = Starlette(routes=[Mount("/admin/jobs", web.app(db.dsn, user=user))])
    here = Site(outer, client="192.0.2.7", host="shop.example")
    assert here.get("/admin/jobs/queue/").status_code == 403
    here_is_ann: dict[str, Any] = {"headers": {"x-user": "ann"}}
    text = here.page("/admin/jobs/queue/", **here_is_ann)
    assert 'href="/admin/jobs/queue/jobs"' in text
    assert 'src="/admin/jobs/static/app.js"' in text
    assert here.get("/admin/jobs/static/app.js", **here_is_ann).status_code == 200
    job = add(db)
    with caplog.at_level(logging.INFO, "graphile_worker.audit"):
        done = here.post("/admin/jobs/queue/do/cancel", data={"id": str(job)}, **here_is_ann)
    assert done.headers["location"] == "/admin/jobs/queue/"
    (line,) = [record.getMessage() for record in caplog.records]
    assert '"user": "ann"' in line
    assert '"action": "cancel"' in line
    assert f'"id": "{job}"' in line


def test_forms_of_other_sites_change_nothing(db: Database) -> None:
    job, here = add(db), site(db)
    here.page("/queue/")
    path, data = "/queue/do/cancel", {"id": str(job)}
    assert here.post(path, csrf=False, data=data).status_code == 403
    assert here.post(path, csrf=False, data={**data, "csrf": "guess"}).status_code == 403
    for header, value in (("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site")):
        assert here.post(path, data=data, headers={header: value}).status_code == 403
    assert Site(web.app(db.dsn)).post(path, data=data).status_code == 403, "no cookie at all"
    assert here.get(f"{path}?id={job}").status_code == 200, "a link only asks"
    assert db.column(f"select id from {G}.jobs") == [job]
    assert here.post(path, data=data, headers={"Origin": "http://localhost"}).status_code == 303
    assert db.column(f"select id from {G}.jobs") == []


def test_rights_are_those_of_the_role_and_read_only_takes_them_away(db: Database) -> None:
    jobs = fill(db)
    with role(db, "observe") as observer:
        for here in (site(db, observer), site(db, read_only=True)):
            assert "read only" in here.page("/queue/")
            path = "/queue/do/cancel"
            assert here.get(f"{path}?id={jobs['ready']}").status_code == 403
            assert here.post(path, data={"id": str(jobs["ready"])}).status_code == 403
    assert db.value(f"select count(*) from {G}.jobs where id = %s", jobs["ready"]) == 1
    with role(db, "enqueue") as producer:
        assert site(db, producer).get("/queue/").status_code == 403


def test_every_answer_forbids_what_the_dashboard_does_not_need(db: Database) -> None:
    here = site(db)
    for path in ("/queue/", "/static/app.js", "/queue/nosuch", "/healthz"):
        headers = here.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    cookie = site(db).get("/queue/").headers["set-cookie"].lower()
    assert "samesite=strict" in cookie
    assert "httponly" in cookie
    text = here.page("/queue/")
    assert "<script>" not in text
    assert " style=" not in text
    assert " on" not in text.replace(" on the", "").partition("<body")[2].partition(">")[0]
