"""A test suite of a user, with a server and without."""

from __future__ import annotations

import pytest
from support.pg import Server

from testing.suite import Suite


@pytest.fixture
def unserved(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """A suite that is told of no server."""
    # Else the plugin is loaded twice where the package is installed, and others are, too.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("GW_TEST_DSN", raising=False)
    return Suite(pytester)


@pytest.fixture
def suite(unserved: Suite, server: Server, monkeypatch: pytest.MonkeyPatch) -> Suite:
    monkeypatch.setenv("GW_TEST_DSN", server.dsn)
    return unserved
