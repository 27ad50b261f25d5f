"""The databases of a cluster: a list of connection strings, or the nodes of Citus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from graphile_worker.cli.dsn import without_driver
from graphile_worker.errors import InvalidArgument
from graphile_worker.worker.database.connections import conninfo

#: Seconds between two reads of the list of Citus' nodes.
POLL_EVERY = 5.0

_NODES = """
    select nodename, nodeport from pg_catalog.pg_dist_node
    where noderole = 'primary' and isactive order by groupid, nodeid
"""
_IS_CITUS = "select 1 from pg_catalog.pg_extension where extname = 'citus'"


def place_of(dsn: str) -> str:
    """Return host, port and database of a connection string, without its password."""
    given = conninfo_to_dict(dsn)
    host = given.get("host") or given.get("hostaddr") or "the local server"
    port = f":{given['port']}" if given.get("port") else ""
    return f"{host}{port}/{given['dbname']}" if given.get("dbname") else f"{host}{port}"


class Members(Protocol):
    """What tells which databases a worker serves."""

    #: Seconds between two reads; None: they stay the same.
    poll_every: float | None

    async def current(self) -> Sequence[str]:
        """Return the connection strings; recurring jobs are added to the first.

        Raise psycopg.Error where they cannot be read.
        """
        ...


class ListedMembers:
    """Databases by their connection strings."""

    poll_every: float | None = None

    def __init__(self, dsns: Sequence[str]) -> None:
        self._dsns = [without_driver(dsn) for dsn in dsns]
        places = [place_of(dsn) for dsn in self._dsns]
        for place in places:
            if places.count(place) > 1:
                raise InvalidArgument(f"the database {place} is given twice: leave one out")

    async def current(self) -> Sequence[str]:
        """Return them all."""
        return self._dsns


class CitusMembers:
    """The coordinator and the other active nodes of a Citus cluster, as pg_dist_node lists them.

    ``dsn`` leads to one of them. If that one is away, the list is read from another that is known.
    """

    poll_every: float | None = POLL_EVERY

    def __init__(self, dsn: str) -> None:
        self._dsn = without_driver(dsn)
        self._known: list[str] = []

    async def current(self) -> Sequence[str]:
        """Read the list; raise InvalidArgument for a database without Citus."""
        errors: list[psycopg.Error] = []
        for dsn in dict.fromkeys((self._dsn, *self._known)):
            try:
                self._known = await self._read(dsn)
            except psycopg.OperationalError as error:
                errors.append(error)
            else:
                return self._known
        raise errors[0]

    async def _read(self, dsn: str) -> list[str]:
        async with await psycopg.AsyncConnection.connect(conninfo(dsn), autocommit=True) as conn:
            if not await (await conn.execute(_IS_CITUS)).fetchall():
                raise InvalidArgument(
                    f"{place_of(dsn)} has no Citus: name each database with --dsn instead"
                )
            nodes = await (await conn.execute(_NODES)).fetchall()
        # A cluster whose coordinator was not told its own address has no row for it.
        return [self._of(name, port) for name, port in nodes] or [self._dsn]

    def _of(self, name: str, port: int) -> str:
        given: dict[str, Any] = conninfo_to_dict(self._dsn)
        given.pop("hostaddr", None)
        return make_conninfo(**{**given, "host": name, "port": port})
