"""Run the checks, several at once, each in a database of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from graphile_worker.gw.conformance import claiming, ending, identity, stopping  # noqa: F401
from graphile_worker.gw.conformance.history import SETUP
from graphile_worker.gw.conformance.rules import CHECKS, Check
from graphile_worker.gw.conformance.stage import Broken, Settings, Stage
from graphile_worker.testing import scratch
from graphile_worker.testing.embedded import Server

_CONNECTIONS = {"max_connections": "300"}


@dataclass(frozen=True)
class Result:
    """What came of a check: ``broken`` says what was seen, and is empty if they are kept."""

    check: str
    rules: tuple[int, ...]
    broken: str
    log: str

    @property
    def is_kept(self) -> bool:
        """Whether the rules were kept."""
        return not self.broken


def chosen(rules: Iterable[int] = ()) -> list[Check]:
    """Return the checks of some rules, or all."""
    wanted = set(rules)
    return [check for check in CHECKS if not wanted or wanted & set(check.rules)]


@contextmanager
def private_server() -> Iterator[tuple[Server, str]]:
    """Start a private server, with a database for checks to copy; give both."""

    def set_up(dsn: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(SETUP)

    with (
        Server(settings=_CONNECTIONS) as server,
        scratch.template(server.dsn(), setup=set_up) as source,
    ):
        yield server, source


def run_checks(
    checks: list[Check],
    settings: Settings,
    server: Server,
    source: str,
    *,
    at_once: int = 4,
    done: Callable[[Result], object] = lambda _: None,
) -> list[Result]:
    """Run the checks on copies of a database; return what came of each, in order."""

    def check_one(check: Check) -> Result:
        result = _run(check, settings, server, source)
        done(result)
        return result

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(check_one, checks))


def _run(check: Check, settings: Settings, server: Server, source: str) -> Result:
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder, ExitStack() as closes:
        if check.own_server:
            server, source = closes.enter_context(private_server())
        queue = closes.enter_context(scratch.database(server.dsn(), source))
        stage = Stage(queue.dsn, Path(folder), server, settings, closes)
        broken = ""
        try:
            check.run(stage)
        except Broken as error:
            broken = str(error)
        except psycopg.Error as error:
            broken = f"the check came to an error: {error}"
        closes.close()
        log = stage.log.read_text(errors="replace") if stage.log.exists() else ""
        return Result(check.name, check.rules, broken, log)
