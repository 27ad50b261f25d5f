"""Names and versions: the schema, quoted identifiers, version numbers."""

from __future__ import annotations

import re

#: The newest schema revision of Node's graphile-worker that the tables match.
NODE_REVISION = 20
#: The schema of the extension, and the default in plain mode.
SCHEMA = "graphile_worker"


def quote_ident(name: str) -> str:
    """Quote an SQL identifier; raise ValueError where PostgreSQL could not hold the name.

    Our own schema stays bare, as PostgreSQL writes it into the extension's functions, so that both
    install modes make the same text.
    """
    size = len(name.encode())
    if not 1 <= size <= 63 or "\0" in name:
        raise ValueError(f"schema name {name!r} has {size} bytes; use 1 to 63 and no NUL")
    return name if name == SCHEMA else '"' + name.replace('"', '""') + '"'


def version_key(version: str) -> tuple[int, ...]:
    """Return what orders versions; raise ValueError for what is not three numbers."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ValueError(f"version {version!r} is not three numbers, such as 1.0.0")
    return tuple(int(number) for number in version.split("."))


def version_in(body: str | None) -> str | None:
    """Return the version that the text of our function version() says, None where it is none."""
    match = re.search(r"'(\d+\.\d+\.\d+)'", body or "")
    return match and match[1]
