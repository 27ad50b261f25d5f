"""The whole life of a queue, on one connection."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from graphile_worker.errors import InUseError
from graphile_worker.install import (
    catalogue,
    detect,
    grant,
    install,
    plan_upgrade,
    repair,
    switch,
    uninstall,
    upgrade,
    verify,
)

from install.test_upgrade import GW


def life(conn: psycopg.Connection[Any], schema: str = GW, mode: Any = "plain") -> None:
    """Everything that can be done to a queue, and nothing of it is left."""
    ident = '"' + schema.replace('"', '""') + '"'
    catalogue._references.clear()  # made by this connection, not by another one
    encoding = conn.info.encoding.replace("ascii", "utf8")  # SQL_ASCII takes every byte
    assert install(conn, schema=schema, mode=mode).changed
    assert verify(conn, schema=schema) == []
    conn.execute(f"select {ident}.add_job('x', job_key := 'k')".encode(encoding))
    assert grant(conn, "pg_monitor", "work", schema=schema).changed
    assert verify(conn, schema=schema) == []
    assert plan_upgrade(conn, schema=schema).steps == []
    assert not upgrade(conn, schema=schema).changed
    conn.execute(f"drop index {ident}.jobs_order_idx".encode(encoding))
    drifts = verify(conn, schema=schema)
    assert [drift.what for drift in drifts] == ["index jobs_order_idx"]
    assert repair(conn, drifts, schema=schema) == []
    assert grant(conn, "pg_monitor", None, schema=schema).changed
    if schema == GW:
        other: Any = {"plain": "extension", "extension": "plain"}[mode]
        assert switch(conn, other).changed
        assert verify(conn) == []
        assert switch(conn, mode).changed
    with pytest.raises(InUseError):
        uninstall(conn, schema=schema)
    assert uninstall(conn, schema=schema, with_jobs=True).changed
    assert detect(conn, schema).mode == "none"
