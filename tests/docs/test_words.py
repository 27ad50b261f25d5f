"""One word for one thing: names use the glossary of CONTRIBUTING, and none of the words it replaces."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from graphile_worker.install.packaging.render import Renderer

ROOT = Path(__file__).parents[2]
#: What names must not contain, and the word for it.
BANNED = {
    "take": "fetch or claim", "takes": "fetch or claim", "taker": "fetcher", "taken": "claimed",
    "taking": "fetching", "look": "poll, read or check", "looks": "poll, read or check",
    "looked": "polled", "ahead": "prefetch", "books": "complete", "beat": "heartbeat",
    "beats": "heartbeat", "sweep": "recover", "calling": "executor", "road": "mode",
    "roads": "mode", "patience": "lock retries", "lane": "partition", "lanes": "partition",
    "crowd": "backlog", "heads": "cursors", "collect": "delete", "collector": "delete",
    "know": "register", "sleeps": "idle", "somebody": "any", "nobody": "none", "hold": "lock",
    "twin": "variable", "mend": "fix",
}  # fmt: skip
#: Names in which such a word means something else.
ALLOWED = {
    "takes_context",  # of Django
    "ahead_in_queue", "_AHEAD", "ahead", "_skip_ahead_cursors", "CollectorRegistry", "collect",
}  # fmt: skip


def python_names() -> Iterator[tuple[Path, str]]:
    for file in (ROOT / "python").rglob("*.py"):
        yield file, file.stem
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    yield file, node.name
                case ast.arg():
                    yield file, node.arg
                case ast.Name():
                    yield file, node.id
                case ast.Attribute():
                    yield file, node.attr


def sql_names() -> Iterator[tuple[str, str]]:
    text = Renderer().install()
    for kind, name in re.findall(
        r"(?m)^create (table|view|function|index|unique index|sequence|type) (?:@extschema@\.)?(\w+)",
        text,
    ):
        yield kind, name
    for name in re.findall(r"(?m)^  (?:out |inout )?(\w+) [a-z@]", text):
        yield "argument or column", name
    for name in re.findall(r"\b[vc]_\w+", text):
        yield "variable", name


def words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


def test_names_use_the_words_of_the_glossary() -> None:
    found = {
        f"{place}: {name} (say {BANNED[word]})"
        for place, name in [*python_names(), *sql_names()]
        if name not in ALLOWED
        for word in words(name) & set(BANNED)
    }
    assert sorted(found) == []


def test_the_glossary_of_contributing_has_thirty_words_or_more() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## Glossary\n")[1].split("\n## ")[0]
    assert len(re.findall(r"(?m)^\| \*\*", section)) >= 30
