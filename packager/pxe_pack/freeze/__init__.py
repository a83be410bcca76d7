"""The agent frozen into a folder that needs no Python on the node, kept in a cache."""

from pxe_pack.freeze.agent import FrozenAgent, image_fits, load_agent
from pxe_pack.freeze.cache import SOURCES, cached_agent, default_cache, freeze_agent, frozen_agent
from pxe_pack.freeze.components import Component, component_lines, components_document, read_components
from pxe_pack.freeze.glibc import GlibcVersion, glibc_floor, machine_of, parse_glibc
from pxe_pack.freeze.machines import ARCHITECTURES, THIS_MACHINE
from pxe_pack.freeze.needs import freeze_problems

__all__ = [
    "ARCHITECTURES",
    "SOURCES",
    "THIS_MACHINE",
    "Component",
    "FrozenAgent",
    "GlibcVersion",
    "cached_agent",
    "component_lines",
    "components_document",
    "default_cache",
    "freeze_agent",
    "freeze_problems",
    "frozen_agent",
    "glibc_floor",
    "image_fits",
    "load_agent",
    "machine_of",
    "parse_glibc",
    "read_components",
]
