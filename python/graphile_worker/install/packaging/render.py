"""Generate what is shipped: SQL scripts from the templates, and client/sync.py from client/aio.py.

Run as ``python -m graphile_worker.install.packaging.render``. It writes the scripts of this version
to sql/ in a checkout, the version to the control file and META.json, and the synchronous client.
With ``--check`` it writes nothing and fails if a file is out of date. ``--freeze`` records the
checksums of this version's scripts: from then on they are released and must not change.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from graphile_worker import __version__
from graphile_worker.install.packaging.scripts import EXTENSION_ONLY, Scripts, extension_dir
from graphile_worker.naming import NODE_REVISION

_ONCE = {
    "schema/essay.sql.j2", "access/guard.sql.j2", "schema/tables.sql.j2",
    "schema/migrations.sql.j2", "schema/types.sql.j2", "access/default_privileges.sql.j2",
    "history/trigger.sql.j2", "workers/trigger.sql.j2",
}  # fmt: skip
#: In a delta: what follows needs the functions of the version.
_AFTER = "-- After the functions:\n"
_PATH = "set local search_path = pg_catalog, pg_temp;"


class Renderer:
    """The templates of one folder, for one version."""

    def __init__(self, folder: Path | None = None, version: str = __version__) -> None:
        self.folder = folder or extension_dir() / "templates"
        self.version = version
        self._environment = Environment(
            loader=FileSystemLoader(self.folder),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,  # SQL, not HTML
        )
        self._environment.globals.update(
            schema="@extschema@", version=version, revision=NODE_REVISION
        )
        macros = self._environment.get_template("macros.j2").module
        names = {n: getattr(macros, n) for n in dir(macros) if not n.startswith("_")}
        self._environment.globals.update(names)
        order = (self.folder / "order.txt").read_text().splitlines()
        parts = [line for line in order if line and not line.startswith("#")]
        cut = parts.index("---")
        self._objects, self._extension_only = parts[:cut], parts[cut + 1 :]

    def _part(self, name: str) -> str:
        return self._environment.get_template(name).render().strip("\n")

    def _script(self, parts: list[str], extension_only: list[str]) -> str:
        only = [EXTENSION_ONLY, *map(self._part, extension_only)] if extension_only else []
        return "\n\n".join([*parts, *only]) + "\n"

    def install(self) -> str:
        """Return the script that makes everything."""
        first, *rest = map(self._part, self._objects)
        return self._script([first, _PATH, *rest], self._extension_only)

    def _replaced(self) -> list[str]:
        parts = [self._part(name) for name in self._objects if name not in _ONCE]
        created = r"(?m)^create (function|view) "
        return [re.sub(created, r"create or replace \1 ", part) for part in parts]

    def _delta(self, name: str) -> tuple[str, list[str]]:
        """Return what comes before the functions, and what comes after them."""
        before, _, after = self._part(name).partition(_AFTER)
        return before.rstrip("\n"), [after.strip("\n")] if after else []

    def upgrade(self, delta: str) -> str:
        """Return the script that brings the version before to this one, from its delta's file."""
        echo = '\\echo Use "ALTER EXTENSION graphile_worker UPDATE" to load this file. \\quit'
        ends = [self._part("access/regrant.sql.j2"), self._part("packaging/announce.sql.j2")]
        before, after = self._delta(delta)
        parts = [echo, _PATH, before, *self._replaced(), *after, *ends]
        return self._script(parts, self._extension_only)

    def scripts(self) -> dict[str, str]:
        """Return the text of every script that belongs to this version, by file name."""
        before, after = self._delta("packaging/adopt.sql.j2")
        adopt = [
            _PATH,
            before,
            *self._replaced(),
            *after,
            self._part("access/regrant.sql.j2"),
        ]
        texts = {
            f"graphile_worker--{self.version}.sql": self.install(),
            "graphile_worker--unpackaged.sql": self._part("packaging/unpackaged.sql.j2") + "\n",
            f"graphile_worker--unpackaged--{self.version}.sql": self._script(
                [self._part("packaging/attach.sql.j2")], self._extension_only
            ),
            "adopt.sql": self._script([*adopt, self._part("packaging/announce.sql.j2")], []),
            "detach.sql": self._part("packaging/detach.sql.j2") + "\n",
        }
        for delta in sorted(self.folder.glob(f"upgrade-*--{self.version}.sql.j2")):
            name = delta.name.removeprefix("upgrade-").removesuffix(".j2")
            texts[f"graphile_worker--{name}"] = self.upgrade(delta.name)
        return texts


def render(schema: str | None = None) -> str:
    """Return the install script of this version from the templates.

    Without a schema it is the extension's script. With one it is plain SQL that makes the same
    objects in that schema, which must exist; run it in one transaction. Raise ValueError for a name
    that PostgreSQL could not hold.
    """
    text = Renderer().install()
    return text if schema is None else Scripts.plain(text, schema)


def _stamped(text: str, version: str) -> str:
    text = re.sub(r"(?m)^default_version = '.*'$", f"default_version = '{version}'", text)
    text = re.sub(r'"version": "(?!1\.0\.0",?\n +"url")[\d.]+"', f'"version": "{version}"', text)
    return re.sub(r"sql/graphile_worker--[\d.]+\.sql", f"sql/graphile_worker--{version}.sql", text)


_AWAITED = ("aio.py", "utils_aio.py", "control_aio.py", "records/utils_aio.py")
# From what is awaited to what is not, in this order.
_SYNCHRONOUS = (
    ("client.utils_aio", "client.utils_sync"),
    ("client.control_aio", "client.control_sync"),
    ("client.records.utils_aio", "client.records.utils_sync"),
    ("waiting.awaited(", "waiting.waited("),
    ("import asyncio\n", "import threading\n"),
    ("asyncio.Lock()", "threading.Lock()"),
    ("AsyncIterator, Iterable", "Iterable, Iterator"),
    ("import Awaitable, Iterable", "import Iterable"),
    ("AsyncIterator", "Iterator"),
    ("asynccontextmanager", "contextmanager"),
    ("sqlalchemy.ext.asyncio import AsyncEngine", "sqlalchemy import Engine"),
    ("AsyncConn, arun, in_one_transaction_async", "SyncConn, in_one_transaction, run"),
    (
        "AsyncConn,\n    arun,\n    in_one_transaction_async,\n    is_engine,\n    is_pool,\n",
        "SyncConn,\n    in_one_transaction,\n    is_engine,\n    is_pool,\n    run,\n",
    ),
    ("in_one_transaction_async", "in_one_transaction"),
    ("arun(", "run("),
    ("AsyncConn ", "SyncConn "), ("AsyncConn,", "SyncConn,"), ("AsyncConn\n", "SyncConn\n"),
    ("Registry[Awaitable[Job]]", "Registry[Job]"),
    (".AsyncConnection.", ".Connection."),
    ("AsyncConnectionPool", "ConnectionPool"), ("AsyncEngine", "Engine"),
    ("__aenter__", "__enter__"), ("__aexit__", "__exit__"),
    ("async def ", "def "), ("async with ", "with "), ("await ", ""),
)  # fmt: skip


def synchronous(sources: dict[str, str]) -> dict[str, str]:
    """Return the synchronous texts of modules whose connections are awaited, by the same names."""
    texts = {}
    for source, text in sources.items():
        _, docstring, rest = text.split('"""', 2)
        first = (
            docstring.split("\n")[0].removesuffix(" with connections that are awaited.").rstrip(",")
        )
        texts[source] = f'''"""Generated from {source} by `make sql`: edit that.

{first}.
"""{rest}'''
    for awaited, not_awaited in _SYNCHRONOUS:
        assert any(awaited in text for text in texts.values()), awaited
        texts = {source: text.replace(awaited, not_awaited) for source, text in texts.items()}
    return texts


def wanted(root: Path) -> dict[Path, str]:
    """Return what each rendered or stamped file of a checkout should hold."""
    files = {root / "sql" / name: text for name, text in Renderer().scripts().items()}
    for name in ("graphile_worker.control", "META.json"):
        files[root / name] = _stamped((root / name).read_text(), __version__)
    client = root / "python" / "graphile_worker" / "client"
    sources = {name: (client / name).read_text() for name in _AWAITED}
    for name, text in synchronous(sources).items():
        files[client / name.replace("aio", "sync")] = text
    return files


def frozen(root: Path) -> dict[str, str]:
    """Return the checksums of the released scripts, by file name."""
    file = root / "sql" / "released.sha256"
    lines = file.read_text().splitlines() if file.exists() else []
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def changed_releases(root: Path) -> list[str]:
    """Return the released scripts that are not what was released."""
    return [
        name
        for name, digest in frozen(root).items()
        if not (root / "sql" / name).is_file()
        or hashlib.sha256((root / "sql" / name).read_bytes()).hexdigest() != digest
    ]


def freeze(root: Path) -> None:
    """Record this version's install and upgrade scripts as released."""
    digests = frozen(root)
    for file in sorted((root / "sql").glob("graphile_worker--[0-9]*.sql")):
        digests.setdefault(file.name, hashlib.sha256(file.read_bytes()).hexdigest())
    lines = [f"{digest}  {name}\n" for name, digest in sorted(digests.items())]
    (root / "sql" / "released.sha256").write_text("".join(lines))


def main() -> int:
    """Write, check or freeze the scripts of a checkout; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m graphile_worker.install.packaging.render", description=__doc__
    )
    parser.add_argument("--check", action="store_true", help="compare with sql/, write nothing")
    parser.add_argument("--freeze", action="store_true", help="record this version as released")
    options = parser.parse_args()
    root = extension_dir()
    failed = False
    for file, text in wanted(root).items():
        if file.is_file() and file.read_text() == text:
            continue
        if file.name in frozen(root):
            print(f"{file.name} is released: raise the version and write a delta", file=sys.stderr)
            failed = True
        elif options.check:
            print(f"{file.name} is stale: run `make sql`", file=sys.stderr)
            failed = True
        else:
            file.write_text(text)
            print(f"wrote {file.relative_to(root)}")
    for file in (root / "sql").glob("graphile_worker--unpackaged--*.sql"):
        if file not in wanted(root):  # PostgreSQL could take it for the shortest way to install
            print(f"{file.name} is not of this version: delete it", file=sys.stderr)
            failed = True
    for name in changed_releases(root):
        print(f"{name} is not what was released: restore it", file=sys.stderr)
        failed = True
    if options.freeze and not failed:
        freeze(root)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
