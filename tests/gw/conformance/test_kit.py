"""The kit finds nothing wrong with a worker that keeps the rules, and what others do wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphile_worker.gw.conformance import runner
from graphile_worker.gw.conformance.rules import CHECKS, RULES
from graphile_worker.gw.conformance.stage import Settings
from graphile_worker.testing.embedded import Server

pytestmark = pytest.mark.majors(18)

MUTANT = Path(__file__).parent / "mutant.py"
#: What a worker does wrong, and the rule that finds it; of "owner" those that use the tables.
WRONG = {
    "one id for all": 1,
    "claims before its heartbeat": 2,
    "silent while it runs": 2,
    "keeps a dead id": 3,
    "forgets lost claims": 4,
    "forgets after a crash": 4,
    "claims every task": 5,
    "starts before the commit": 6,
    "ignores more": 7,
    "hoards": 8,
    "hears nothing": 9,
    "believes notifications": 9,
    "never polls": 9,
    "runs twice": 10,
    "says no error": 11,
    "its own backoff": 11,
    "late writes": 12,
    "gives up unanswered calls": 13,
    "gives up at a lock": 14,
    "whole batch again": 15,
    "never reviews": 16,
    "claims by itself": 17,
    "claims by itself, past limits": 18,
    "leaves at once": 19,
    "goes on after a signal": 19,
    "ends no id": 20,
    "recovers no one": 21,
}


def test_every_rule_has_a_check_and_a_mutant() -> None:
    checked = {rule for check in CHECKS for rule in check.rules}
    assert checked == set(RULES) == set(WRONG.values())
    page = (Path(__file__).parents[3] / "docs/protocol.md").read_text()
    assert [f"\n{number}. " in page for number in RULES] == [True] * len(RULES)


@pytest.fixture(scope="module")
def private() -> Iterator[tuple[Server, str]]:
    with runner.private_server() as made:
        yield made


@pytest.mark.parametrize("mutant", WRONG)
def test_what_a_worker_does_wrong_is_found(
    private: tuple[Server, str], mutant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUTANT", mutant)
    settings = Settings([sys.executable, str(MUTANT)], 12, owner="claims by itself" in mutant)
    results = runner.run_checks(runner.chosen([WRONG[mutant]]), settings, *private)
    assert any(result.broken for result in results)


def test_a_worker_that_keeps_the_rules_passes_and_the_command_says_so() -> None:
    command = [sys.executable, "-m", "graphile_worker.gw.cli", "conformance", "--json"]
    done = subprocess.run(
        [*command, "--command", f"{sys.executable} {MUTANT}", "--timeout", "90"],
        capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    wrong = [check for check in found["checks"] if not check["is_kept"]]
    assert wrong == []
    assert [rule["rule"] for rule in found["rules"]] == list(RULES)
    assert done.returncode == 0
