"""The SQL scripts that are shipped: their versions, and their text for either install mode.

An extension script holds ``@extschema@`` where the schema's name goes. Plain mode runs the same
text with the name filled in and without the end that only an extension needs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from graphile_worker.naming import SCHEMA, quote_ident, version_key

#: The line after which a script holds what only an extension needs.
EXTENSION_ONLY = "-- Only for an extension, from here on."

_PACKAGE = Path(__file__).parents[2]
_INSTALLED = _PACKAGE / "_extension"
_CHECKOUT = _PACKAGE.parents[1]

# Whoever runs this in a longer transaction gets the search_path back.
_BEFORE = (
    "select pg_catalog.set_config('graphile_worker.search_path',"
    " pg_catalog.current_setting('search_path'), true);"
)
_AFTER = (
    "select pg_catalog.set_config('search_path',"
    " pg_catalog.current_setting('graphile_worker.search_path'), true);"
)


def extension_dir() -> Path:
    """Return the folder of the control file, sql/ and templates/: a wheel's or a checkout's."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


@dataclass(frozen=True)
class TableLock:
    """A lock that a script takes on one of the tables, in the words of PostgreSQL's LOCK."""

    table: str
    mode: str


class Scripts:
    """The control file and scripts of one folder; without one, those of this package."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or extension_dir()
        # A checkout keeps them apart; a wheel has the one folder that PostgreSQL 18 wants.
        one = self.folder / "extension"
        self._sql = one if one.is_dir() else self.folder / "sql"

    @property
    def control(self) -> Path:
        """The control file."""
        folder = self.folder if self._sql.name == "sql" else self._sql
        return folder / f"{SCHEMA}.control"

    def files(self) -> list[Path]:
        """Return what a server's extension folder needs, the control file last."""
        return [*sorted(self._sql.glob(f"{SCHEMA}--*.sql")), self.control]

    def versions(self) -> list[str]:
        """Return the versions that can be installed, oldest first."""
        names = [file.name[len(SCHEMA) + 2 : -4] for file in self.files()[:-1]]
        full = [name for name in names if re.fullmatch(r"\d+\.\d+\.\d+", name)]
        return sorted(full, key=version_key)

    @property
    def latest(self) -> str:
        """The newest version."""
        return self.versions()[-1]

    def steps(self, old: str, new: str) -> list[str]:
        """Return the updates from one version to a later one, such as ``1.0.0--1.1.0``, in order.

        Raise ValueError where no chain of updates leads there.
        """
        edges: dict[str, list[str]] = {}
        for file in self.files()[:-1]:
            match = re.fullmatch(r"graphile_worker--(\d[\d.]*)--(\d[\d.]*)\.sql", file.name)
            if match:
                edges.setdefault(match[1], []).append(match[2])
        paths = {old: list[str]()}
        waiting = [old]
        while waiting:
            here = waiting.pop(0)
            for there in edges.get(here, []):
                if there not in paths:
                    paths[there] = [*paths[here], f"{here}--{there}"]
                    waiting.append(there)
        if new not in paths:
            raise ValueError(f"no update leads from version {old} to {new}")
        return paths[new]

    def read(self, name: str) -> str:
        """Return the text of a script, such as ``1.0.0``, ``1.0.0--1.1.0`` or ``adopt.sql``."""
        file = name if name.endswith(".sql") else f"{SCHEMA}--{name}.sql"
        return (self._sql / file).read_text(encoding="utf-8")

    def extension(self, name: str) -> str:
        r"""Return a script as CREATE EXTENSION runs it: without the ``\echo`` that stops psql."""
        return re.sub(r"\A\\echo.*\n+", "", self.read(name))

    @staticmethod
    def plain(text: str, schema: str = SCHEMA) -> str:
        """Return a script's text as plain SQL for a schema, to be run in one transaction.

        Raise ValueError for a name that PostgreSQL could not hold.
        """
        text = re.sub(r"\A\\echo.*\n+", "", text).partition(EXTENSION_ONLY)[0].rstrip()
        return f"{_BEFORE}\n\n{fill_in(text, quote_ident(schema))}\n\n{_AFTER}\n"

    def attach(self) -> str:
        """Return what makes plain objects of the newest version members of the extension."""
        return (
            f"create extension {SCHEMA} schema {SCHEMA} version 'unpackaged';\n"
            f"alter extension {SCHEMA} update to '{self.latest}';"
        )

    def locks(self, name: str) -> list[TableLock]:
        """Return the locks that a script takes on tables that hold rows, as its text declares."""
        found = re.findall(r"(?m)^-- lock: (\S+) (.+)$", self.read(name))
        return [TableLock(table, mode) for table, mode in found]

    def names(self, version: str) -> set[str]:
        """Return the bare names of all that a version makes."""
        others = re.findall(r"(?m)^create (?:unique index|index|trigger) (\w+)", self.read(version))
        return {name for _, name in self.members(version)}.union(others)

    def members(self, version: str) -> set[tuple[str, str]]:
        """Return the kind and bare name of what a version makes a member of the extension."""
        text = self.read(version)
        kinds = "table|sequence|view|type|function"
        found = set(re.findall(rf"(?m)^create ({kinds}) @extschema@\.(\w+)", text))
        return found | {
            ("sequence", name) for name in re.findall(r"sequence name @extschema@\.(\w+)", text)
        }

    def registered(self, version: str) -> dict[str, str]:
        """Return the tables and sequences that a dump of the extension saves, and which rows."""
        call = r"pg_extension_config_dump\(\s*'@extschema@\.(\w+)',\s*'(.*?)'\s*\)"
        return dict(re.findall(call, self.read(version)))

    def statement(self, version: str, start: str) -> str | None:
        """Return the statement of the install script that starts so, or None."""
        end = r"\b" if start[-1].isalnum() else ""
        match = re.search(rf"(?ms)^{re.escape(start)}{end}.*?;$", self.read(version))
        if match and match[0].count("$$") == 1:  # a function ends after its body
            match = re.search(rf"(?ms)^{re.escape(start)}{end}.*?\$\$.*?\$\$;$", self.read(version))
        return match[0] if match else None

    def address(self, version: str, function: str) -> str:
        """Return a function of a version with its argument types, as GRANT wants to have it."""
        comment = self.statement(version, f"comment on function @extschema@.{function}(")
        assert comment is not None
        return comment.split("function ")[1].split(" is ")[0]

    def pg_tle(self, old: str | None = None) -> str:
        """Return the calls that register every version with pg_tle, for servers without files.

        With the newest version that was registered before, only what came later. Raise ValueError
        for one that is not known.
        """
        comment = re.search(r"comment = '(.*)'", self.control.read_text())
        assert comment
        new = self.versions()
        if old is not None and old not in new:
            raise ValueError(f"version {old} is unknown: use {', '.join(new)}")
        lines: list[str] = []
        if old is None:
            lines.append(
                f"select pgtle.install_extension('{SCHEMA}', '{new[0]}', '{comment[1]}',"
                f" {_tle_quoted(self.extension(new[0]))});"
            )
            full = [*new[1:], "unpackaged"]
        else:
            full = new = [name for name in new if version_key(name) > version_key(old)]
        lines += [
            f"select pgtle.install_extension_version_sql('{SCHEMA}', '{version}',"
            f" {_tle_quoted(self.extension(version))});"
            for version in full
        ]
        for file in self.files()[:-1]:
            start, _, end = file.name[len(SCHEMA) + 2 : -4].partition("--")
            if end in new:
                lines.append(
                    f"select pgtle.install_update_path('{SCHEMA}', '{start}', '{end}',"
                    f" {_tle_quoted(self.extension(f'{start}--{end}'))});"
                )
        lines.append(f"select pgtle.set_default_version('{SCHEMA}', '{self.latest}');")
        return "\n\n".join(lines) + "\n"


def fill_in(text: str, ident: str) -> str:
    """Put a quoted schema name into a script's text, or into a part of it."""
    if "$$" in ident:  # a body may not hold its own closing quote
        text = text.replace("$$", _free_tag(ident))
    literal = "'" + ident.replace("'", "''")
    # In one go: the name itself may hold what is looked for.
    return re.sub(
        "'?@extschema@", lambda found: literal if found[0].startswith("'") else ident, text
    )


def _free_tag(schema: str) -> str:
    tag = "$gw$"
    while tag in schema:
        tag = tag[:-1] + "w$"
    return tag


def _tle_quoted(text: str) -> str:
    return f"$_pgtle_$\n{text}$_pgtle_$"
