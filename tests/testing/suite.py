"""Test suites of users, run by the tests."""

from __future__ import annotations

import pytest


class Suite:
    """A test suite that uses the plugin, and is run in a process of its own."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = -p no:cacheprovider\n")

    def conftest(self, text: str) -> None:
        self._pytester.makeconftest(text)

    def run(self, text: str, *args: str) -> pytest.RunResult:
        self._pytester.makepyfile(test_app=text)
        return self._pytester.runpytest_subprocess("-p", "graphile_worker.testing", *args)

    def passes(self, text: str, *args: str) -> None:
        result = self.run(text, *args)
        assert result.ret == 0, result.stdout.str() + result.stderr.str()

    def fails(self, text: str) -> str:
        """Return what the failure of the only test says."""
        result = self.run(text)
        result.assert_outcomes(failed=1)
        return "\n".join(
            line.removeprefix("E").strip() for line in result.outlines if line.startswith("E ")
        )
