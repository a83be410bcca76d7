"""What holds for every test."""

from __future__ import annotations

import signal

import pytest

pytest.register_assert_rewrite("fakes.trial")


def pytest_configure() -> None:
    """Hear Ctrl-C, and so have the programs that tests start hear it: a shell's background jobs ignore it (sh(1))."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
