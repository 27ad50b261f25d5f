"""Render the SQL templates to the extension script, or to plain SQL for any schema.

``python -m graphile_worker.render`` writes the scripts below sql/ in a checkout; with ``--check``
it writes nothing and fails where a committed script differs from its templates.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from graphile_worker import __version__

#: The newest schema revision of Node's graphile-worker that the tables match.
NODE_REVISION = 20

_INSTALLED = Path(__file__).parent / "_extension"
_CHECKOUT = Path(__file__).parents[2]


def extension_dir() -> Path:
    """Return the folder of the control file, sql/ and templates/: a wheel's or a checkout's."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def quote_ident(name: str) -> str:
    """Quote an SQL identifier; raise ValueError where PostgreSQL could not hold the name."""
    size = len(name.encode())
    if not 1 <= size <= 63 or "\0" in name:
        raise ValueError(f"schema name {name!r} has {size} bytes; use 1 to 63 and no NUL")
    return '"' + name.replace('"', '""') + '"'


def render(schema: str | None = None) -> str:
    """Return the install script.

    Without a schema it is the extension's script, which PostgreSQL runs with the schema filled in.
    With one it is plain SQL that makes the same objects in that schema, which must exist; run it in
    one transaction. Raise ValueError for a name that PostgreSQL could not hold.
    """
    folder = extension_dir() / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # SQL, not HTML: names are quoted below
    )
    macros = environment.get_template("macros.j2").module
    names = {n: getattr(macros, n) for n in dir(macros) if not n.startswith("_")}
    order = (folder / "order.txt").read_text().splitlines()
    # The schema's name goes in last: bare, within a literal, within a literal that format() reads.
    bare, literal, formatted = "\1", "\2", "\3"
    parts = [
        environment.get_template(line).render(
            names,
            schema=bare,
            schema_text=literal,
            schema_format=formatted,
            extension=schema is None,
            version=__version__,
            revision=NODE_REVISION,
        )
        for line in order
        if line and not line.startswith("#")
    ]
    text = "\n\n".join(part.strip("\n") for part in parts) + "\n"
    ident = "@extschema@" if schema is None else quote_ident(schema)
    if "$$" in ident:
        text = text.replace("$$", _free_tag(ident))  # a body may not hold its own closing quote
    text = text.replace(formatted, ident.replace("'", "''").replace("%", "%%"))
    return text.replace(literal, ident.replace("'", "''")).replace(bare, ident)


def _free_tag(schema: str) -> str:
    tag = "$gw$"
    while tag in schema:
        tag = tag[:-1] + "w$"
    return tag


def scripts() -> dict[str, str]:
    """Return the text of each script below sql/ that comes from the templates, by file name."""
    return {f"graphile_worker--{__version__}.sql": render()}


def main() -> int:
    """Write or check the scripts of a checkout; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m graphile_worker.render", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with sql/, write nothing")
    check = parser.parse_args().check
    folder = extension_dir() / "sql"
    stale = [
        name
        for name, text in scripts().items()
        if not (folder / name).is_file() or (folder / name).read_text() != text
    ]
    for name in stale:
        if check:
            print(f"sql/{name} is not what the templates say: run `make sql`", file=sys.stderr)
        else:
            (folder / name).write_text(scripts()[name])
            print(f"wrote sql/{name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
