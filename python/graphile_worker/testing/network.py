"""A network between workers and their server, which can be cut, and can swallow everything."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class Network:
    """Forwards bytes from a port of its own to a server."""

    def __init__(self, dsn: str) -> None:
        at = conninfo_to_dict(dsn)
        self._server = (str(at["host"]), int(at["port"] or 5432))
        self._door = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=self._door.getsockname()[1])
        self._flows = threading.Event()
        self._flows.set()
        self._answers_are_lost = False
        self._open: set[socket.socket] = set()
        self._closed = False
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """End every connection."""
        for each in list(self._open):
            _end(each)

    def swallow(self) -> None:
        """Carry nothing from now on, and tell nobody: connections stay open."""
        self._flows.clear()

    def lose_answers(self) -> None:
        """Carry nothing from the server from now on: what it does, the client is not told."""
        self._answers_are_lost = True

    def heal(self) -> None:
        """Carry everything again, also what was held back; lost answers stay lost."""
        self._answers_are_lost = False
        self._flows.set()

    def close(self) -> None:
        """End everything."""
        self._closed = True
        self._flows.set()
        _end(self._door)
        self.cut()

    def _serve(self) -> None:
        with suppress(OSError):
            while not self._closed:
                client, _ = self._door.accept()
                threading.Thread(target=self._connect, args=[client], daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._open.add(client)
        self._flows.wait()
        try:
            server = socket.create_connection(self._server)
        except OSError:
            _end(client)
            return
        self._open.add(server)
        try:
            with suppress(OSError, ValueError):
                self._carry(client, server)
        finally:
            for each in (client, server):
                _end(each)
                self._open.discard(each)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        while True:
            ready, _, _ = select.select([client, server], [], [], 1)
            self._flows.wait()
            for each in ready:
                data = each.recv(1 << 16)
                if not data:
                    return
                if each is client or not self._answers_are_lost:
                    other[each].sendall(data)


def _end(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
