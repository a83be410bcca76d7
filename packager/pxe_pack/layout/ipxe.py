"""`boot.ipxe`: the entries of grub.cfg as an iPXE script, for nodes that boot by iPXE instead of shim and GRUB.

Kernel and initrds are named relative to the script (iPXE takes a relative URI from where the script came from), so that
one script is right over HTTP and TFTP, wherever it lies; of the URLs it has `root=live:` alone. Source:
https://ipxe.org/scripting and https://ipxe.org/cmd; `initrd=` for kernels whose EFI stub finds its initrd only by name,
Linux' Documentation/admin-guide/efi-stub.rst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from posixpath import basename
from urllib.parse import quote

from pxe_pack.layout.entries import BootEntry, Menu, menu

IPXE_SCRIPT = "boot.ipxe"
RETRY_DELAY = 10  # seconds from a file that could not be loaded to the next attempt
FAILED = "pxe-pack: a file of the layout could not be loaded"


def script(grub_cfg: str, *, read: Callable[[str], str]) -> str:
    """The script for what `grub_cfg` boots; `read` gives a text file of the layout. Raises GrubSyntaxError."""
    return "\n".join(_lines(menu(grub_cfg, read=read))) + "\n"


def _lines(entries: Menu) -> Iterator[str]:
    bootable = [number for number, entry in enumerate(entries.entries) if not _expands(entry)]
    default = entries.default if entries.default in bootable else next(iter(bootable), 0)
    yield "#!ipxe"
    yield "# Made by pxe-pack of boot/grub2/grub.cfg. Paths are relative to where this script comes from."
    yield ":start"
    if len(bootable) > 1 and entries.timeout != 0:
        yield from _menu(entries, bootable, default=default)
    yield f"goto entry{default}"
    for number, entry in enumerate(entries.entries):
        yield ""
        if number in bootable:
            yield from _entry(number, entry)
        else:
            yield f"# {_title(entry)}: left out, for iPXE would expand a ${{…}} of its kernel arguments"
    yield from ("", ":failed", f"echo {FAILED}: again in {RETRY_DELAY} s")
    yield from (f"sleep {RETRY_DELAY}", "imgfree", "goto start")


def _menu(entries: Menu, bootable: list[int], *, default: int) -> Iterator[str]:
    yield f"menu Boot || goto entry{default}"
    for number in bootable:
        yield f"item entry{number} {_title(entries.entries[number])}"
    timeout = f" --timeout {entries.timeout * 1000}" if entries.timeout else ""
    yield f"choose --default entry{default}{timeout} chosen && goto ${{chosen}} || goto entry{default}"


def _entry(number: int, entry: BootEntry) -> Iterator[str]:
    arguments = [*(f"initrd={basename(path)}" for path in entry.initrds), *map(quoted, entry.arguments)]
    yield f":entry{number}"
    yield f"echo {_title(entry)}"
    yield f"kernel {_relative(entry.kernel)} {' '.join(arguments)} || goto failed"
    for path in entry.initrds:
        yield f"initrd --name {basename(path)} {_relative(path)} || goto failed"
    yield "boot || goto failed"


def _relative(path: str) -> str:
    return quote(path.lstrip("/"), safe="/+~@:,=")


def _title(entry: BootEntry) -> str:
    """The entry's title, of what a terminal and iPXE's own syntax bear."""
    return "".join(letter for letter in entry.title if letter.isprintable() and letter not in "$|&#") or "LiveOS"


def quoted(argument: str) -> str:
    """The argument as the kernel reads it (parse_args in kernel/params.c): iPXE hands on words as they are."""
    return f'"{argument}"' if any(letter.isspace() for letter in argument) else argument


def _expands(entry: BootEntry) -> bool:
    return any("${" in word for word in [*entry.arguments, entry.kernel, *entry.initrds])
