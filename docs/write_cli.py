"""Write cli.md: every command and flag of gw and gw-install, as their parsers know them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from graphile_worker.cli.flags import commands_of
from graphile_worker.gw.cli import build_parser as gw
from graphile_worker.install.cli import build_parser as gw_install

PAGE = Path(__file__).with_name("cli.md")
INTRODUCTION = """# Command lines

`gw` operates a queue; `gw-install` changes the schema. This page lists every command and flag. A
flag with an environment variable can also be set there.
"""


def _rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if action.dest == "help" or action.help == argparse.SUPPRESS:
            continue
        names = ", ".join(f"`{name}`" for name in action.option_strings)
        metavar = action.metavar or (None if action.choices is None else "\\|".join(action.choices))
        if isinstance(metavar, tuple):
            metavar = " ".join(metavar)
        if not names:
            names = f"`{metavar or action.dest}`"
        elif action.nargs != 0:
            names += f" {metavar or action.dest.upper()}"
        text, variable = (action.help or "").replace("%(default)s", str(action.default)), ""
        if found := re.search(r" ?\[env: (\w+)\]", text):
            text, variable = text.replace(found[0], ""), f"`{found[1]}`"
        yield f"| {names} | {text.replace('|', chr(92) + '|').replace('%%', '%')} | {variable} |"


def page() -> str:
    """Return the text of cli.md."""
    parts = [INTRODUCTION]
    for program, parser in (("gw", gw()), ("gw-install", gw_install())):
        for name, command in commands_of(parser).items():
            rows = "\n".join(_rows(command))
            table = f"\n\n| flag | meaning | environment |\n|---|---|---|\n{rows}" if rows else ""
            parts.append(f"## {program} {name}\n\n{command.description}{table}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text() != page() and f"{PAGE.name} is out of date: run `make docs`")
    PAGE.write_text(page())
