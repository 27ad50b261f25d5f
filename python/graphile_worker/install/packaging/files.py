"""Put the extension's files where a PostgreSQL server looks for them, and take them away again."""

from __future__ import annotations

import secrets
import stat
import subprocess
from pathlib import Path
from typing import Any

import psycopg

from graphile_worker.errors import FilesError
from graphile_worker.install.packaging.scripts import Scripts
from graphile_worker.naming import SCHEMA


def folder_of_pg_config(pg_config: str | Path) -> Path:
    """Return the extension folder that a pg_config program names; raise FilesError otherwise."""
    try:
        asked = subprocess.run(
            [str(pg_config), "--sharedir"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise FilesError(
            f"{pg_config} does not say where the server's files are ({error}):"
            " give --sharedir, or --pg-config with the program of that server"
        ) from error
    return Path(asked.stdout.strip()) / "extension"


def folder_of_server(conn: psycopg.Connection[Any]) -> Path:
    """Return the extension folder of the running server, which must be on this machine.

    Raise FilesError where the role may not ask, which takes a superuser.
    """
    try:
        with conn.transaction():
            row = conn.execute(
                "select setting from pg_catalog.pg_config() where name = 'SHAREDIR'"
            ).fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        raise FilesError(
            f"role {conn.info.user} may not ask the server where its files are:"
            " connect as a superuser, or give --sharedir or --pg-config"
        ) from error
    assert row is not None
    return Path(row[0]) / "extension"


def put_files(
    folder: Path,
    *,
    destdir: Path | None = None,
    make: bool = False,
    scripts: Scripts | None = None,
    dry_run: bool = False,
) -> list[Path]:
    """Copy the control file and the scripts to an extension folder; return the files there.

    Each is written beside its place and renamed, the control file last, so that a server never sees
    half of one, nor a version whose scripts are missing. With destdir the folder lies below it;
    then, and with ``make``, a missing one is made. Attachments left by another version of this
    package are removed. With ``dry_run`` only say where. Raise FilesError where the folder is
    missing or may not be written.
    """
    scripts = scripts or Scripts()
    target = _below(destdir, folder)
    wanted = scripts.files()
    if dry_run:
        return [target / file.name for file in wanted]
    written = []
    try:
        if make or destdir is not None:
            target.mkdir(parents=True, exist_ok=True)
        for file in wanted:
            beside = target / f".{file.name}.{secrets.token_hex(6)}"
            try:
                beside.write_bytes(file.read_bytes())
                beside.chmod(0o644)
                beside.replace(target / file.name)
            finally:
                beside.unlink(missing_ok=True)
            written.append(target / file.name)
        names = {file.name for file in wanted}
        for old in target.glob(f"{SCHEMA}--unpackaged--*.sql"):
            if old.name not in names:  # a second one could become the shortest way to install
                old.unlink()
    except OSError as error:
        raise _cannot(target, error) from error
    return written


def remove_files(folder: Path, *, destdir: Path | None = None, dry_run: bool = False) -> list[Path]:
    """Remove the control file and our scripts from an extension folder; return them.

    Databases that have the extension keep working, but cannot be upgraded or restored from a dump.
    Raise FilesError where the folder may not be written.
    """
    target = _below(destdir, folder)
    files = [target / f"{SCHEMA}.control", *sorted(target.glob(f"{SCHEMA}--*.sql"))]
    present = [file for file in files if file.exists()]
    if dry_run:
        return present
    try:
        for file in present:
            file.unlink()
    except OSError as error:
        raise _cannot(target, error) from error
    return present


def control_path(directory: Path | None = None, scripts: Scripts | None = None) -> str:
    """Return the line for postgresql.conf with which PostgreSQL 18 needs no copy in its own folder.

    Without a directory it names this package's own; where the files are put to a directory with
    ``put_files(directory / "extension")``, that one. Raise FilesError where the server's user could
    not read it, or where this is a checkout, whose files lie in several folders.
    """
    home = (directory or (scripts or Scripts()).folder).absolute()
    if ":" in str(home):
        raise FilesError(
            f"{home} has a colon, which parts the folders of extension_control_path: choose another"
            " folder, with `gw-install files put --directory DIR`"
        )
    if not (home / "extension" / f"{SCHEMA}.control").exists():
        raise FilesError(
            f"{home} has no folder extension with the control file and the scripts:"
            " put them somewhere first, with `gw-install files put --directory DIR`"
        )
    for part in [home / "extension", *(home / "extension").resolve().parents]:
        mode = part.stat().st_mode
        if not mode & stat.S_IXOTH:
            raise FilesError(
                f"the server's user cannot read below {part}: choose a folder that everybody may"
                " read, with `gw-install files put --directory DIR`"
            )
    return f"extension_control_path = '{str(home).replace(chr(39), chr(39) * 2)}:$system'"


def _below(destdir: Path | None, folder: Path) -> Path:
    return folder if destdir is None else destdir / str(folder.absolute()).lstrip("/")


def _cannot(target: Path, error: OSError) -> FilesError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return FilesError(
            f"cannot change the extension folder {target} ({error.strerror}): run this on"
            " the server's machine and name its folder with --sharedir or --pg-config, or use"
            " --destdir, or install without files: `gw-install install --mode plain`"
        )
    return FilesError(
        f"cannot change the extension folder {target} ({error.strerror}): run this as a user who"
        " may write there (often root), or use --destdir, or choose the road without files:"
        " `gw-install install --mode plain`"
    )
