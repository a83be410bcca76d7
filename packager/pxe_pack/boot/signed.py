"""What a test boot can add to a layout's signed boot, whose kernel arguments are signed too.

The firmware of a virtual machine can give more to systemd's stub from 254 on, as an SMBIOS string. Given to an older
one, the node sends no report here: its verdict is the agent's line on the console, if the image has a serial one.
"""

from __future__ import annotations

from collections.abc import Sequence

from pxe_fetch.contract.problem import Problem
from pxe_pack.boot.boot_method import BootMethod
from pxe_pack.boot.served_layout import ServedLayout
from pxe_pack.layout.ipxe import quoted
from pxe_pack.trust import stub


def takes_arguments(layout: ServedLayout, via: BootMethod) -> bool:
    """Whether a test boot can add kernel arguments. Raises OSError."""
    if not layout.program or via is BootMethod.IPXE:
        return True
    return stub.takes_arguments((layout.root / layout.program).read_bytes())


def smbios(layout: ServedLayout, arguments: Sequence[str], via: BootMethod) -> list[str]:
    """QEMU's arguments that pass kernel arguments to the stub; none if GRUB or iPXE does. Raises OSError."""
    if not layout.program or via is BootMethod.IPXE or not takes_arguments(layout, via):
        return []
    value = f"{stub.EXTENDED}{' '.join(map(quoted, arguments))}"
    return ["-smbios", f"type=11,value={value.replace(',', ',,')}"]


def unsupported_reason(layout: ServedLayout, *, via: BootMethod, append: str, secure: bool) -> Problem | None:
    """The problem that rules out booting `layout` so; None if it is possible. Raises OSError."""
    if secure and via is BootMethod.IPXE:
        message = "iPXE is not signed, so firmware with Secure Boot does not start it"
        return Problem(reference="boot-secure-ipxe", message=message, hint="boot with --via tftp")
    if takes_arguments(layout, via):
        return None
    if append:
        message = f"{layout.program} takes only its own kernel arguments: they are signed, and its stub is an old one"
        hint = "leave --append out, or pack with the stub of systemd 254 or later"
        return Problem(reference="boot-signed-arguments", message=message, hint=hint)
    if "console=ttyS0" not in layout.command_line:
        message = f"{layout.program} has no console=ttyS0 among its kernel arguments, and takes no others"
        hint = "for a test boot, give the image `console=ttyS0`, or pack with the stub of systemd 254 or later"
        return Problem(reference="boot-signed-arguments", message=message, hint=hint)
    return None
