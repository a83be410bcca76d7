"""The configuration that nodes fetch by URL (`pxe-pack pin`): no file of the layout, but it can be served with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from pxe_fetch.contract.minisign import signature_url
from pxe_fetch.contract.problem import Problem
from pxe_fetch.contract.url import redact
from pxe_pack.hashing import hash_file
from pxe_pack.layout import nginx
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.site import Site
from pxe_pack.layout.urls import server
from pxe_pack.real_path import real_path
from pxe_pack.serve.user import is_readable, server_user
from pxe_pack.tools import InputError, command_line
from pxe_pack.trust.signature import signature_file


class Options(Protocol):
    """The options that this needs; implemented by plan.Options."""

    @property
    def pinned(self) -> Path | None: ...


def files(options: Options, layout: Layout) -> dict[str, Path]:
    """The given configuration and its signature, by URL; none if none is given.

    They are served as they are on disk, so one that `pin` has signed again is served at once. Raises InputError if
    nodes would refuse the configuration, or nginx could not read it.
    """
    file, pin = options.pinned, layout.pinned
    if file is None:
        return {}
    if pin is None:
        raise _refused(f"{layout.root} has no pinned configuration", "pin one first: pxe-pack pin DIR FILE --url URL")
    found, user = {pin.url: real_path(file)}, server_user(layout.root)
    if pin.signed_by:
        found[signature_url(pin.url)] = signature_file(real_path(file))
    for one in found.values():
        if not one.is_file():
            raise _refused(f"{one} is not a file", "give the file that was pinned; its signature is beside it")
        if not is_readable(one, user):
            raise _refused(f"nginx cannot read {one}", "put it where everybody can read it, such as beside the layout")
    if not pin.signed_by and hash_file(file).sha256 != pin.sha256:
        message = f"{file} is not the configuration that was pinned, and nodes would refuse it"
        raise _refused(message, f"pin it again: {command_line('pxe-pack', 'pin', layout.root, file)}")
    return found


def warnings(options: Options, site: Site) -> Iterator[Problem]:
    """A warning if nodes fetch their configuration from a server that is served here, and it is not."""
    pin = site.layout.pinned
    if pin and not options.pinned and server(pin.url) in nginx.servers(site):
        yield Problem(
            reference="serve-pinned",
            message=f"nodes fetch their configuration from {redact(pin.url)}, which is not served",
            hint=f"give its file: --pinned {pin.name}",
            severity="warning",
        )


def _refused(message: str, hint: str) -> InputError:
    return InputError(Problem(reference="serve-pinned", message=message, hint=hint))
