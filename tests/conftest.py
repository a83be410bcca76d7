"""What holds for every test."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

pytest.register_assert_rewrite("fakes.trial")

# How long an example takes is the machine's affair; tests/bench/ measures.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure() -> None:
    """Hear Ctrl-C, and so have the programs that tests start hear it: a shell's background jobs ignore it (sh(1))."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup(1): a handler is not inherited, as SIG_IGN is
        signal.signal(signal.SIGHUP, lambda *_: None)


class FilesAndBoots(LoadFileScheduling):  # type: ignore[misc]  # it carries no types
    """A file's tests go to one worker, for they share fixtures; so do all boots, for one takes most of a machine.

    So do those of a fleet, which share the time of one network.

    Files are taken in the order of the command line, so that those which take long can be begun first.
    """

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        file, _, _ = nodeid.partition("::")
        return next((folder for folder in ("tests/boot", "tests/fleet") if file.startswith(f"{folder}/")), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FilesAndBoots:
    """How `pytest -n` distributes the tests (pytest-xdist's hook)."""
    return FilesAndBoots(config, log)


def pytest_xdist_auto_num_workers() -> int:
    """How many workers `pytest -n auto` has: one more than CPUs, for half of what tests do is wait (decision 0044)."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_addoption(parser: pytest.Parser) -> None:
    """Campaigns by chance have few rounds by default."""
    parser.addoption("--full", action="store_true", help="all rounds of the campaigns: 100 seeds, 200 kills")
    parser.addoption("--release", metavar="DIR", help="test this release of HEAD, instead of building one")


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether every round of a campaign is wanted."""
    return bool(request.config.getoption("--full"))
