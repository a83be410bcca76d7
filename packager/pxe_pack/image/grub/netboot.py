"""Whether a GRUB can boot over the network, and which configuration it reads, derived from what is built into it.

Over PXE, GRUB's `root` is the TFTP server, and its prefix is a path there. It first runs its embedded script and then,
unless that loads something else, `normal`, which reads $prefix/grub.cfg. Over TFTP, `search` finds nothing and every
file test is false. Sources: GRUB, kern/main.c and normal/main.c; the observed behaviour of Debian's and KIWI's GRUB.
"""

from __future__ import annotations

from dataclasses import dataclass

from pxe_pack.image.grub.efi_image import GrubImage
from pxe_pack.image.grub.interpreter import Interpreter
from pxe_pack.image.grub.limits import GrubSyntaxError
from pxe_pack.image.grub.variables import PREFIX, Variables

LAYOUT_CONFIG = f"{PREFIX}/grub.cfg"
# Loaded by UEFI HTTP boot, Debian 13's GRUB 2.12 takes the folder that it was loaded from for its prefix (observed).
HTTP_CONFIG = "/grub.cfg"

_NEEDED = ("net", "efinet", "tftp", "normal", "linux")
_NETWORK, _MEMDISK = "(tftp)", "(memdisk)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Netboot:
    """How a GRUB behaves when loaded over TFTP."""

    config: str = ""  # the path it reads, such as /boot/grub2/grub.cfg; empty if it reads none over the network
    obstacle: str = ""  # why it cannot boot over the network; empty if it can


def over_network(grub: GrubImage) -> Netboot:
    """How `grub` behaves when loaded over TFTP, possibly by a shim."""
    if missing := [name for name in _NEEDED if name not in grub.modules]:
        return Netboot(obstacle=f"its GRUB lacks the built-in module{'s' * (len(missing) > 1)} {', '.join(missing)}")
    if (grub.prefix or "").startswith("("):
        return Netboot(obstacle=f"its GRUB looks for its files on a disk, {grub.prefix}")
    try:
        read = _first_read(grub)
    except GrubSyntaxError as error:
        return Netboot(obstacle=f"cannot parse the script embedded in its GRUB: {error}")
    if not read.startswith((_NETWORK, "/")):
        return Netboot(obstacle=f"the script embedded in its GRUB reads {read}, which is not on the network")
    return Netboot(config="/" + "/".join(part for part in read.removeprefix(_NETWORK).split("/") if part))


def redirector(config: str) -> str:
    """The script to place at `config` so that GRUB reads the layout's grub.cfg; empty if `config` is that file."""
    if config == LAYOUT_CONFIG:
        return ""
    folder, _, name = LAYOUT_CONFIG.rpartition("/")
    return f"set prefix=($root){folder}\nsource $prefix/{name}\n"


class _Found(Exception):  # noqa: N818  no error
    """The script has read a file outside of its memdisk."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def _first_read(grub: GrubImage) -> str:
    """The first file outside its memdisk that GRUB reads. Raises GrubSyntaxError."""

    def read(path: str) -> str:
        if path.startswith(_MEMDISK):
            return grub.memdisk_config
        raise _Found(path)

    values = {"prefix": _NETWORK + (grub.prefix or ""), "root": _NETWORK.strip("()"), "cmdpath": _NETWORK}
    variables = Variables(values, exported={"prefix", "root"})
    try:
        Interpreter(lambda _: "", read, variables, grub.commands).run(grub.config)
    except _Found as found:
        return found.path
    return f"{variables.get('prefix')}/grub.cfg"
