"""Every program of docs/languages.md, run as it stands there."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from support.pg import CLIENTS, NODE, SERVERS, Database, run

pytestmark = pytest.mark.majors(18)

PAGE = Path(__file__).parents[2] / "docs" / "languages.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
JDBC = Path("/usr/share/java/postgresql.jar")
GOPATH = Path("/usr/share/gocode")


@dataclass(frozen=True)
class Language:
    """How a program is run, and before that compiled, in a folder of its own."""

    file: str
    run: tuple[str | Path, ...]
    build: tuple[str, ...] = ()
    library: Path = Path("/")

    def is_installed(self) -> bool:
        program = (self.build or self.run)[0]
        return shutil.which(program) is not None and self.library.exists()


LANGUAGES = {
    "sh": Language("order.sh", ("sh", "order.sh")),
    "js": Language("order.mjs", (NODE, "order.mjs")),
    "go": Language(
        "order.go",
        ("./order",),
        ("go", "build", "-o", "order", "order.go"),
        GOPATH / "src/github.com/jackc/pgx/v4",
    ),
    "ruby": Language("order.rb", ("ruby", "-w", "order.rb")),
    "java": Language(
        "PlaceOrder.java",
        ("java", "-cp", f"{JDBC}:.", "PlaceOrder"),
        ("javac", "-Xlint:all", "-Werror", "PlaceOrder.java"),
        JDBC,
    ),
    "php": Language(
        "order.php", ("php", "-d", "error_reporting=-1", "-d", "display_errors=1", "order.php")
    ),
}

JOBS = """graphile_worker.jobs join
    (select id, payload from graphile_worker._private_jobs) payloads using (id)"""

#: What `make debian` brings for root; others test what they have.
TESTED = [
    name
    for name, language in LANGUAGES.items()
    if os.geteuid() == 0 or name in ("sh", "js") or language.is_installed()
]


def block(name: str) -> str:
    only: str
    (only,) = [text for language, text in BLOCKS if language == name]
    return only


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of the compiled programs, one for all processes that test."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "languages"
    folder.mkdir(exist_ok=True)
    return folder


def build(programs: Path, name: str) -> Path:
    """Write the program of a language, compile it where it has to be, and return its folder."""
    folder, language = programs / name, LANGUAGES[name]
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "built").exists():
            (folder / language.file).write_text(block(name))
            if language.build:
                go = {
                    "CGO_ENABLED": "0",
                    "GO111MODULE": "off",
                    "GOCACHE": str(programs / "go-cache"),
                    "GOFLAGS": "",
                    "GOPATH": str(GOPATH),
                }
                run(language.build, cwd=folder, env={**os.environ, **go})
            (folder / "built").touch()
    return folder


def run_program(programs: Path, name: str, db: Database) -> str:
    """Run the program of a language as the role app; return what it printed."""
    folder = build(programs, name)
    modules = folder / "node_modules"
    if name == "js" and not modules.exists():
        modules.symlink_to(SERVERS)
    info = db.connect().info
    env = {
        "PATH": f"{CLIENTS[18]}:{os.environ['PATH']}",
        "PGHOST": info.host,
        "PGPORT": str(info.port),
        "PGDATABASE": db.name,
        "PGUSER": "app",
    }
    return run(LANGUAGES[name].run, cwd=folder, env={**os.environ, **env})


@pytest.fixture
def shop(db: Database) -> Iterator[Database]:
    """A database in which the page's SQL has run."""
    db.rows(block("sql"))
    yield db
    db.rows("drop owned by app")
    db.rows("drop role app")


class Listener:
    """Hears what wakes the workers."""

    def __init__(self, db: Database) -> None:
        self._connection = db.connect()
        self._connection.execute('listen "jobs:insert"')

    def counts(self) -> list[int]:
        """Return the count of each notification so far."""
        self._connection.execute("notify \"jobs:insert\", 'so far'")
        heard: list[int] = []
        for note in self._connection.notifies(timeout=60):
            if note.payload == "so far":
                return heard
            heard.append(json.loads(note.payload)["count"])
        raise AssertionError("its own notification did not come")


def test_the_page_has_one_program_for_each_language() -> None:
    assert [language for language, _ in BLOCKS] == ["sql", *LANGUAGES]


@pytest.mark.majors(18)
@pytest.mark.parametrize("name", TESTED)
def test_the_committed_order_has_its_jobs_and_the_other_left_nothing(
    shop: Database, programs: Path, name: str
) -> None:
    listener = Listener(shop)
    printed = run_program(programs, name, shop)
    receipt, *reviews = shop.rows(
        "select task_identifier, payload, key, queue_name,"
        f" round(extract(epoch from run_at - created_at) / 86400)::int, id from {JOBS} order by id"
    )
    assert receipt[:5] == ("send_receipt", {"order": 1}, "receipt 1", "receipts", 0)
    assert [review[:5] for review in reviews] == [
        ("ask_review", {"order": 1}, None, None, days) for days in (7, 30)
    ]
    assert shop.rows("select * from orders") == [(1, "Ann")]
    assert printed == f"job {receipt[5]}\n"
    assert listener.counts() == [1], "the receipt is due, the reviews are not"
    carol = shop.value("insert into orders (customer) values ('Carol') returning id")
    assert carol == 3, "Bob's order was placed, then rolled back"
    job = shop.value("select id from graphile_worker.add_job('next')")
    assert job > reviews[-1][5] + 1, "Bob's job was added, then rolled back"


def test_other_types_than_json_are_refused_as_the_page_says(db: Database) -> None:
    for kind in ("jsonb", "text", "varchar"):
        with pytest.raises(psycopg.errors.UndefinedFunction) as refused:
            db.rows(f"select graphile_worker.add_job('x', '{{}}'::{kind})")
        if kind == "jsonb":
            assert str(refused.value).splitlines()[0] in PAGE.read_text()
        db.rows(f"select graphile_worker.add_job('x', '{{}}'::{kind}::json)")


def test_a_time_after_the_start_of_the_transaction_wakes_nobody(db: Database) -> None:
    listener, program = Listener(db), db.connect(autocommit=False)
    [(start,)] = program.execute("select now()").fetchall()
    add = "select graphile_worker.add_job('x', run_at := %s)"
    program.execute(add, [start + timedelta(microseconds=1)])
    program.commit()
    assert listener.counts() == []
    db.rows(add, start)
    assert listener.counts() == [1]


def test_a_batch_from_json_takes_all_fields_and_ignores_unknown_ones(db: Database) -> None:
    spec = {
        "identifier": "x",
        "payload": {"a": [1, None]},
        "queue_name": "q",
        "run_at": "2030-01-31T12:00:00Z",
        "max_attempts": 3,
        "job_key": "k",
        "priority": -1,
        "flags": ["a", "b c"],
    }
    shared = "id, task_identifier, payload, queue_name, run_at, max_attempts, key, priority, flags"
    ids = db.column(
        "select id from graphile_worker.add_jobs(array("
        " select spec from json_populate_recordset(null::graphile_worker.job_spec, %s) spec))",
        json.dumps([spec, {"identifier": "y", "quue_name": "q"}]),
    )
    first, second = db.rows(f"select {shared} from {JOBS} order by id")
    assert [first[0], second[0]] == ids
    assert first[1:] == (
        *("x", {"a": [1, None]}, "q", datetime.fromisoformat("2030-01-31T12:00:00Z")),
        *(3, "k", -1, {"a": True, "b c": True}),
    )
    assert (second[1], second[3], second[6]) == ("y", None, None)
