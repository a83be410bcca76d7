"""What holds for every test."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("fakes.trial")

# How long an example takes is the machine's affair; tests/bench/ measures.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure() -> None:
    """Hear Ctrl-C, and so have the programs that tests start hear it: a shell's background jobs ignore it (sh(1))."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup(1): a handler is not inherited, as SIG_IGN is
        signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Campaigns by chance have few rounds by default."""
    parser.addoption("--full", action="store_true", help="all rounds of the campaigns: 100 seeds, 200 kills")


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether every round of a campaign is wanted."""
    return bool(request.config.getoption("--full"))
