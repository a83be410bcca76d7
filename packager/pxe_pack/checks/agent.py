"""Checks whether the agent can run in an image."""

from __future__ import annotations

from pxe_fetch.contract.problem import Problem
from pxe_pack.freeze import FrozenAgent, image_fits
from pxe_pack.image.liveos import LiveImage


def agent_fits(agent: FrozenAgent, image: LiveImage) -> list[Problem]:
    """An error if `agent` cannot run in `image`, a warning if that cannot be determined."""
    if image.tree is None:
        message = f"cannot determine the C library of {image.path}: its root filesystem is {image.root_format}"
        hint = f"make sure it is glibc {agent.glibc} or newer on {agent.machine}"
        return [Problem(reference="agent-glibc-unknown", message=message, hint=hint, severity="warning")]
    problem = image_fits(agent, glibc=image.facts.glibc, machine=image.machine)
    return [problem] if problem else []
