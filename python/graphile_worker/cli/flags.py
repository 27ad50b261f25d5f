"""Flags that can be set in the environment, connecting, and output."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from graphile_worker.cli.dsn import without_driver
from graphile_worker.errors import InstallError
from graphile_worker.naming import SCHEMA

Parser = argparse.ArgumentParser


class FromEnvironment(str):
    """The value of a flag that was not given: of its variable, or its default."""


class _Switch(argparse.Action):
    """A flag without a value, whose variable in the environment says yes or no."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, type=_truth, **options)

    def __call__(self, parser: Parser, namespace: argparse.Namespace, *rest: object) -> None:
        """Note that the flag was given."""
        setattr(namespace, self.dest, True)


class _Several(argparse.Action):
    """A flag that may be repeated; the values given replace those of its variable."""

    def __call__(
        self, parser: Parser, namespace: argparse.Namespace, values: Any, *rest: object
    ) -> None:
        """Collect a value."""
        before = getattr(namespace, self.dest)
        kept = [] if before is self.default else before
        setattr(namespace, self.dest, [*kept, *values])


class _Database(argparse.Action):
    """The flag --dsn: ``dsn`` is its first value, and ``dsns`` has all of them."""

    def __call__(
        self, parser: Parser, namespace: argparse.Namespace, values: Any, *rest: object
    ) -> None:
        """Collect a value."""
        namespace.dsns = [*getattr(namespace, "dsns", ()), values]
        namespace.dsn = namespace.dsns[0]


def _listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def split(text: str) -> list[Any]:
        parts = text.split(",") if isinstance(text, FromEnvironment) else [text]
        return [kind(part) for part in parts]

    return split


def _truth(text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True,
             "0": False, "false": False, "no": False, "off": False}  # fmt: skip
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"its variable says {text!r}: use 1 or 0")
    return known[text.lower()]


def _one_of(choices: Sequence[str]) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(choices)}")
        return text

    return check


def env(parser: Any, *flags: str, help: str, **options: Any) -> None:
    """Add a flag with its variable among the environment variables: GW_ and its first name.

    An empty variable counts as not set. Switches take 1 or 0; flags that may
    be repeated have commas between the values.
    """
    name = "GW_" + flags[0].lstrip("-").replace("-", "_").upper()
    if options.pop("switch", False):
        options.update(action=_Switch, default=False)
    elif "choices" in options:  # argparse would not look at the variable's value
        options["type"] = _one_of(options["choices"])
    if options.pop("several", False):
        options.update(action=_Several, type=_listed(options.get("type", str)))
        choices = options.pop("choices", None)
        options.setdefault("metavar", f"{{{','.join(choices)}}}" if choices else name[3:])
    if given := os.environ.get(name):
        options["default"] = FromEnvironment(given)
    parser.add_argument(*flags, help=f"{help} [env: {name}]", **options)


def connects(parser: Parser, *, several: bool = False) -> None:
    """Add the flags that name a queue, or several."""
    more = "; repeat it for several (GW_DSN: one a line)" if several else ""
    env(
        parser, "--dsn", default="", action=_Database if several else "store",
        help=f"connection string, URL or name of a database{more}",
    )  # fmt: skip
    if several:
        env(
            parser, "--citus", switch=True,
            help="all nodes of the Citus cluster that --dsn leads to",
        )  # fmt: skip
    env(parser, "--schema", default=FromEnvironment(SCHEMA), help="schema of the queue")
    env(
        parser, "--trust-owner", several=True, metavar="ROLE",
        help="as a superuser, trust this owner of the schema; may be repeated",
    )  # fmt: skip


def reports(parser: Parser) -> None:
    """Add the output flags."""
    env(parser, "--json", switch=True, help="print JSON")
    verbose(parser)


def verbose(parser: Parser) -> None:
    """Add --verbose."""
    env(parser, "--verbose", "-v", switch=True, help="show tracebacks")
    parser.add_argument("--scripts", type=Path, help=argparse.SUPPRESS)


def dry_run(parser: Parser, help: str) -> None:
    """Add the flag that only prints."""
    env(parser, "--dry-run", "--print", switch=True, help=help)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found <= 2_000_000:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds: use for example 30 or 0.5"
        )
    return found


def waits(parser: Parser) -> None:
    """Add the flags for lock timeouts and retries."""
    env(
        parser, "--timeout", type=_seconds, default=60.0,
        help="how many seconds to retry (default 60)",
    )  # fmt: skip
    env(
        parser, "--lock-timeout", type=_seconds, default=1.0,
        help="how many seconds to wait for a lock before retrying (default 1)",
    )  # fmt: skip


def changes(parser: Parser) -> None:
    """Add the flags of every command that changes a queue."""
    connects(parser)
    dry_run(parser, "print the SQL, change nothing")
    waits(parser)


def dsns(options: argparse.Namespace) -> list[str]:
    """Return what each --dsn says as a connection string."""
    given = getattr(options, "dsns", None) or (options.dsn or "").strip().splitlines() or [""]
    return [_conninfo(text.strip()) for text in given]


def dsn(options: argparse.Namespace) -> str:
    """Return what --dsn says as a connection string."""
    return _conninfo(options.dsn or "")


def _conninfo(given: str) -> str:
    if given and "=" not in given and "://" not in given:
        return make_conninfo(dbname=given)
    return without_driver(given)


def connect(options: argparse.Namespace) -> psycopg.Connection[Any]:
    """Connect with --dsn or libpq's variables; raise InstallError where that fails."""
    try:
        conn = psycopg.connect(
            dsn(options), autocommit=True, fallback_application_name=options.prog
        )
    except psycopg.Error as error:
        raise InstallError(
            f"cannot connect: {' '.join(str(error).split())} - check --dsn or the PG* variables and"
            " that the server runs; nothing was changed"
        ) from error
    conn.execute("set client_encoding to 'UTF8'")
    return conn


def as_json(value: Any) -> str:
    """Return JSON for people as well."""
    return json.dumps(value, indent=2, default=str, ensure_ascii=False)


def out(options: argparse.Namespace, value: Any, text: str) -> None:
    """Print a result, as JSON with --json."""
    if options.json:
        plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        print(as_json(plain))
    elif text:
        print(text)


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command, by name."""
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(commands.choices)
