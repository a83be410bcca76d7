"""The frozen agent, and what it was frozen in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fakes.faults import Serve, Status
from fakes.server import Script, Server
from packing.frozen import SMALL
from pxe_pack import freeze
from pxe_pack.console import PlainConsole
from pxe_pack.freeze.environment import Environment, environment_name, read_environment


@pytest.fixture(scope="session")
def agent() -> freeze.FrozenAgent:
    return freeze.frozen_agent(cache=freeze.default_cache(), console=PlainConsole())


@pytest.fixture
def environment(agent: freeze.FrozenAgent) -> Environment:
    """The environment that the agent was frozen in."""
    found = read_environment(agent.path.parent.parent / environment_name(agent.machine))
    assert found
    return found


@pytest.fixture
def server() -> Iterator[Server]:
    with Server({"/small.bin": Script(body=SMALL, faults=[Status(503), Serve(until=0.5)])}) as http:
        yield http
