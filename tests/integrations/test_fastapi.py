"""The example of FastAPI, SQLAlchemy and Alembic, as a user would start it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict
from support.pg import Database, wait_for

pytestmark = pytest.mark.majors(18)

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi"
G = "graphile_worker"
#: A connection for each request: the server closes that of one which failed.
ONCE = httpx.Limits(max_keepalive_connections=0)


def _env(db: Database) -> dict[str, str]:
    info = conninfo_to_dict(db.dsn)
    url = f"postgresql://{info['user']}@{info['host']}:{info['port']}/{info['dbname']}"
    return {**os.environ, "DATABASE_URL": url, "ANNS_PASSWORD": "secret of ann"}


def alembic(db: Database, *args: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *args], cwd=EXAMPLE, env=_env(db), capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def served(empty_db: Database, tmp_path: Path) -> Iterator[str]:
    alembic(empty_db, "upgrade", "head")
    empty_db.rows(f"select {G}.keep_history()")
    log = tmp_path / "app.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"], cwd=EXAMPLE,
            env=_env(empty_db), stdout=out, stderr=out,
        )  # fmt: skip
        try:
            wait_for(lambda: "running on" in log.read_text() or process.poll() is not None)
            found = re.findall(r"running on (http://\S+)", log.read_text())
            assert found, log.read_text()
            yield found[0]
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
    assert code in (0, -signal.SIGTERM), log.read_text()
    assert empty_db.column(f"select worker_id from {G}.workers") == [], "the worker has left"


def test_jobs_belong_to_the_requests_transaction_and_run_beside_it(
    empty_db: Database, served: str
) -> None:
    with httpx.Client(base_url=served, limits=ONCE, timeout=60) as http:
        jobs = [http.post(f"/{kind}/bob").json()["job"] for kind in ("users", "greetings")]
        assert http.post("/users/nobody").status_code == 409
        assert http.post("/users/bob").status_code == 500, "the user is there already"
        ended = f"select job_id, result from {G}.job_history order by job_id"
        wait_for(lambda: len(empty_db.rows(ended)) == 2)
        assert empty_db.rows(ended) == [(job, "Hello bob") for job in jobs]
        assert empty_db.column("select name from users") == ["bob"]
        assert empty_db.column(f"select id from {G}.jobs") == []
        assert http.get("/healthz").json() == {"worker": True}


def test_the_dashboard_is_behind_the_applications_login(empty_db: Database, served: str) -> None:
    with httpx.Client(base_url=served, limits=ONCE, timeout=60) as http:
        assert http.get("/jobs/queue/").status_code == 403
        assert http.post("/login/ann", params={"password": "wrong"}).status_code == 401
        assert http.get("/jobs/queue/").status_code == 403
        http.post("/login/ann", params={"password": "secret of ann"})
        text = http.get("/jobs/queue/").text
        assert "Overview" in text
        assert "ann</footer>" in text


def test_migrations_go_up_and_down_and_print_their_sql(empty_db: Database) -> None:
    sql = alembic(empty_db, "upgrade", "head", "--sql")
    assert "create function" in sql.lower()
    assert empty_db.value("select to_regclass('graphile_worker.jobs')") is None
    for _ in range(2):
        alembic(empty_db, "upgrade", "head")
        assert empty_db.value(f"select ({G}.add_job('t')).id")
        alembic(empty_db, "downgrade", "base")
        assert empty_db.value("select to_regclass('graphile_worker.jobs')") is None
    empty_db.rows("drop table alembic_version")
    empty_db.connect().execute(sql.encode())
    assert empty_db.value(f"select {G}.version()")
