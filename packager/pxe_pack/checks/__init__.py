"""Checks of an image or a layout, one subject per module. Each yields its problems, so that all are shown at once."""

from collections.abc import Callable, Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.additional import additional_files
from pxe_pack.checks.addresses import grub_over_ipv6, names, own_machine
from pxe_pack.checks.agent import agent_fits
from pxe_pack.checks.arguments import arguments, command_lines
from pxe_pack.checks.certificates import root_certificates
from pxe_pack.checks.destinations import destinations
from pxe_pack.checks.digests import digests
from pxe_pack.checks.files import files
from pxe_pack.checks.grubmenu import grub_menu
from pxe_pack.checks.grubscript import grub_script
from pxe_pack.checks.identity import machine_id, shared_identity
from pxe_pack.checks.image import boot_warnings, bootable
from pxe_pack.checks.initrd import initrds
from pxe_pack.checks.kernels import kernels
from pxe_pack.checks.loaders import loaders
from pxe_pack.checks.machine import disk_space, needed_tools
from pxe_pack.checks.memory import memory
from pxe_pack.checks.network import root_network
from pxe_pack.checks.packed_agent import packed_agent
from pxe_pack.checks.pinned_config import acceptable, pinned_config
from pxe_pack.checks.relative_urls import relative_urls
from pxe_pack.checks.secrets import secrets
from pxe_pack.checks.secureboot import secure_boot
from pxe_pack.checks.settings import (
    artifact_url,
    boot_url,
    compression,
    credentials,
    keep_without_publish,
    missing_setting,
    places,
    publishing,
    urls,
)
from pxe_pack.checks.signedboot import other_entries, signed_by, signed_program
from pxe_pack.checks.start_units import start_units
from pxe_pack.checks.subject import Subject, subject
from pxe_pack.checks.tls import tls_files
from pxe_pack.checks.verified_iso import verified_iso

__all__ = [
    "Subject",
    "acceptable",
    "additional_files",
    "agent_fits",
    "artifact_url",
    "boot_url",
    "command_lines",
    "compression",
    "configuration",
    "credentials",
    "disk_space",
    "for_urls",
    "keep_without_publish",
    "missing_setting",
    "needed_tools",
    "offline",
    "other_entries",
    "places",
    "publishing",
    "signed_by",
    "subject",
    "urls",
]

# In the order of a node's boot, and then what it does with its configuration.
_OFFLINE: tuple[Callable[[Subject], Iterator[Problem]], ...] = (
    bootable,
    loaders,
    secure_boot,
    signed_program,
    grub_script,
    grub_menu,
    arguments,
    grub_over_ipv6,
    own_machine,
    files,
    kernels,
    initrds,
    verified_iso,
    boot_warnings,
    machine_id,
    shared_identity,
    root_network,
    pinned_config,
)
_CONFIGURATION: tuple[Callable[[Subject], Iterator[Problem]], ...] = (
    root_certificates,
    relative_urls,
    names,
    memory,
    destinations,
    digests,
    secrets,
    start_units,
    tls_files,
    packed_agent,
)


# Those whose verdict depends on the URLs alone.
_FOR_URLS = (initrds, grub_over_ipv6, own_machine, root_network, root_certificates)


def for_urls(subject: Subject) -> Iterator[Problem]:
    """The problems with the URLs of a layout whose other parts are settled. Raises WorkError as `offline` does."""
    for check in _FOR_URLS:
        yield from check(subject)


def offline(subject: Subject) -> Iterator[Problem]:
    """The problems found by all checks that need no server. Raises WorkError if the root filesystem is damaged."""
    for check in _OFFLINE:
        yield from check(subject)
    yield from configuration(subject)


def configuration(subject: Subject) -> Iterator[Problem]:
    """The problems that nodes would have with their configuration, of those above. Raises WorkError as above."""
    for check in _CONFIGURATION:
        yield from check(subject)
