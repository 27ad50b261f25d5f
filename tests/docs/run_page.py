"""Run the Python and SQL blocks of a page: `python run_page.py PAGE`, with the PG* variables set."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

import psycopg
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser


def _python(example: Example) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        PythonEvaluator()(example)
    expected = re.findall(r"(?m)^# -> (.*)$", example.parsed)
    printed_lines = printed.getvalue().splitlines()
    assert not expected or printed_lines == expected, (printed_lines, expected)


def _sql(example: Example) -> None:
    with psycopg.connect("", autocommit=True) as conn:
        for statement in re.split(r";(?: *--.*)?\n", example.parsed):
            if statement.strip():
                conn.execute(statement.encode())


SYBIL = Sybil(
    [
        CodeBlockParser(language="python", evaluator=_python),
        CodeBlockParser(language="sql", evaluator=_sql),
        SkipParser(),
    ]
)

if __name__ == "__main__":
    examples = list(SYBIL.parse(Path(sys.argv[1])).examples())
    assert examples
    for each in examples:
        each.evaluate()
