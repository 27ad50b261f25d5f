"""A TCP proxy before a server that cuts connections at a chosen statement."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from psycopg.conninfo import conninfo_to_dict, make_conninfo

#: ReadyForQuery outside of a transaction: the statement before it is committed.
_READY = b"Z\0\0\0\x05I"


class Proxy:
    """Forwards bytes, until it is told to cut at a text of the client's.

    The text is seen where it is sent whole: in statements that are not prepared.
    """

    def __init__(self, dsn: str) -> None:
        at = conninfo_to_dict(dsn)
        self._server = (str(at["host"]), int(at["port"] or 5432))
        self._door = socket.create_server(("127.0.0.1", 0))
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=self._door.getsockname()[1])
        self._lock = threading.Lock()
        self._text: bytes | None = None
        self._when, self._left, self._hold = "before", 0, False
        self._open: set[socket.socket] = set()
        #: How many connections were cut.
        self.cuts = 0
        self._lets_in = threading.Event()
        self._lets_in.set()

    def cut(
        self, text: str, when: Literal["before", "after"], times: int = 1, *, hold: bool = False
    ) -> None:
        """Cut the next connections that send the text: before the server has it, or after its
        answer has come, which the client does not get. Others wait then, if they are to be held."""
        with self._lock:
            self._text, self._when, self._left, self._hold = text.encode(), when, times, hold

    def let_in(self) -> None:
        """Serve the connections that wait, and others."""
        self._lets_in.set()

    def serve(self) -> None:
        """Accept connections until the door is closed."""
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                threading.Thread(target=self._both, args=[client], daemon=True).start()

    def close(self) -> None:
        """Close everything."""
        self._lets_in.set()
        self._shut(self._door)
        for each in list(self._open):
            self._shut(each)

    def _both(self, client: socket.socket) -> None:
        self._lets_in.wait(60)
        server = socket.create_connection(self._server)
        pair, doomed = (client, server), threading.Event()
        self._open.update(pair)
        back = threading.Thread(target=self._answers, args=[*pair, doomed], daemon=True)
        back.start()
        with suppress(OSError):
            while data := client.recv(1 << 20):
                when = self._caught(data)
                if when == "before":
                    break
                if when == "after":
                    doomed.set()
                server.sendall(data)
        if not doomed.is_set():
            self._shut(*pair)
        back.join()
        self._open.difference_update(pair)

    def _answers(
        self, client: socket.socket, server: socket.socket, doomed: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                if not doomed.is_set():
                    client.sendall(data)
                elif data.endswith(_READY):
                    break
        self._shut(client, server)

    def _caught(self, data: bytes) -> str | None:
        with self._lock:
            if not self._left or self._text is None or self._text not in data:
                return None
            self._left -= 1
            self.cuts += 1
            if self._hold:
                self._lets_in.clear()
            return self._when

    @staticmethod
    def _shut(*sockets: socket.socket) -> None:
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextmanager
def proxy(dsn: str) -> Iterator[Proxy]:
    """Run a proxy before the server of a connection string."""
    made = Proxy(dsn)
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join(10)
