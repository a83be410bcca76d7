"""Whether the agent can run in an image."""

from __future__ import annotations

from pxe_fetch.contract.problem import Problem
from pxe_pack.freeze import FrozenAgent, image_fits
from pxe_pack.image.liveos import LiveImage


def agent_fits(agent: FrozenAgent, image: LiveImage) -> list[Problem]:
    """Why `agent` cannot run in `image`; a warning where that cannot be known."""
    if image.tree is None:
        message = f"the C library of {image.path} is not known, for its root is {image.root_format}"
        hint = f"the agent needs glibc {agent.glibc} or newer on {agent.machine}"
        return [Problem(reference="agent-glibc-unknown", message=message, hint=hint, severity="warning")]
    problem = image_fits(agent, glibc=image.facts.glibc, machine=image.machine)
    return [problem] if problem else []
