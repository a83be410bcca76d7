"""A signed boot: one program, signed by the site, that has the kernel, the initrd and the kernel arguments in it.

It boots the default entry of the layout's grub.cfg. Firmware starts it as `bootx64.efi` if its `db` has the site's
certificate (chain `db`); a distribution's shim starts it as `grubx64.efi` if the node's MOK list has it (chain `shim`).
The kernel, the initrd and grub.cfg stay in the layout: the program is made again from them when they change. Why:
docs/decisions/0043. Sources: UEFI 2.10, 32.5; shim, README.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.choices import CHAINS
from pxe_pack.hashing import SizeAndDigest, copy_hashed, hash_file
from pxe_pack.image import kernel
from pxe_pack.image.bootloader import SUFFIXES, BootFile, BootLoaders
from pxe_pack.image.efi import examined
from pxe_pack.image.grub.config import GRUB_CFG
from pxe_pack.image.pe.certificates import name
from pxe_pack.image.rootfs import OS_RELEASE
from pxe_pack.image.tree import RootTree, regular_file
from pxe_pack.layout.entries import BootEntry, menu
from pxe_pack.layout.ipxe import quoted
from pxe_pack.layout.layout import Layout, section_of
from pxe_pack.tools import InputError
from pxe_pack.trust import uki
from pxe_pack.trust.signing import Signer, fingerprint, read_certificate, signer_problems
from pxe_pack.trust.stub import Stub, find_stub

DB, SHIM = CHAINS
FACTS = "secure_boot"  # the key of the manifest
ALIGNMENT = 4  # bytes, of each initrd (Linux, Documentation/driver-api/early-userspace/buffer-format.rst)


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedBoot:
    """How a layout's signed boot is made."""

    signer: Signer
    chain: str
    stub: Stub
    os_release: bytes
    programs: tuple[str, ...]  # the signed program's names in the layout
    shim: Mapping[str, BootFile]  # what starts it, by name in the layout; empty if firmware does

    @property
    def files(self) -> tuple[str, ...]:
        """The boot programs of the layout, that which the firmware starts first."""
        return (*self.shim, *self.programs)

    def line(self) -> str:
        """A line of the plan."""
        by = "the firmware" if self.chain == DB else "shim"
        who = name(read_certificate(self.signer.certificate))
        return f"signed    {', '.join(self.programs)} with kernel, initrd and arguments, by {who}; started by {by}"

    def write(self, layout: Layout, *, work: Path) -> dict[str, object]:
        """Write shim and the signed program into `layout`, which has all else. Returns the manifest's section.

        Raises WorkError if the program cannot be made or signed, InputError if no entry can be booted, and OSError.
        """
        for path, file in self.shim.items():
            layout.write(path, file.pieces())
        parts = {**({uki.OS_RELEASE: (self.os_release,)} if self.os_release else {}), **expected(layout)}
        if release := kernel.release(layout.root.joinpath(default_entry(layout).kernel.lstrip("/")).read_bytes()):
            parts[uki.RELEASE] = (release.encode(),)
        made = make(layout, self.stub.data, parts, signer=self.signer, programs=self.programs, work=work)
        return {"chain": self.chain, "stub": self.stub.origin, **made}


def signed_boot(
    signer: Signer, *, chain: str, tree: RootTree | None, machine: str, loaders: BootLoaders | None
) -> SignedBoot:
    """The signed boot of an image with this root filesystem and these boot loaders. Raises InputError if impossible."""
    problems = signer_problems(signer)
    stub: Stub | None = None
    try:
        stub = find_stub(tree, machine=machine)
    except InputError as error:
        problems += error.problems
    first, second = f"boot{SUFFIXES.get(machine, 'x64')}.efi", f"grub{SUFFIXES.get(machine, 'x64')}.efi"
    shim: Mapping[str, BootFile] = {}
    programs: tuple[str, ...] = (first,)
    if chain == SHIM:
        found = loaders.files.get(first) if loaders else None
        if found is None or not examined(first, b"".join(found.pieces())).shim:
            message = "the chain `shim` needs a signed shim, but the boot loaders have none"
            hint = "pass a folder with shim and GRUB to --boot-loader, or use the chain `db`"
            problems.append(Problem(reference="signed-boot-no-shim", message=message, hint=hint))
        else:
            shim = {first: found}
            programs = tuple(
                dict.fromkeys([second, *(one for one in (loaders.files if loaders else ()) if one != first)])
            )
    if stub and not problems:
        problems += signer.trial(uki.compose(stub.data, {}))
    if problems or stub is None:
        raise InputError(*problems)
    release = next((data for path in OS_RELEASE if tree and (data := regular_file(tree, path))), b"")
    return SignedBoot(signer=signer, chain=chain, stub=stub, os_release=release, programs=programs, shim=shim)


def programs(layout: Layout) -> tuple[str, ...]:
    """The names of a layout's signed program, all of the same content; empty if its boot is not signed."""
    listed = section_of(layout.facts, FACTS).get("programs")
    return tuple(one for one in listed if one in layout.files) if isinstance(listed, list) else ()


def key_problems(layout: Layout, signer: Signer | None) -> list[Problem]:
    """Why the signed program of `layout` cannot be made again after a change; nothing if its boot is not signed."""
    if not programs(layout):
        return []
    if signer:
        return signer_problems(signer)
    message = f"{layout.root} has a signed boot, and this changes what is signed: it has to be signed again"
    hint = "give --secure-boot-key and --secure-boot-cert; or pack again"
    return [Problem(reference="signed-boot-no-key", message=message, hint=hint)]


def default_entry(layout: Layout) -> BootEntry:
    """The entry that a signed boot boots. Raises InputError if there is none, and GrubSyntaxError."""
    found = menu(layout.text(GRUB_CFG), read=layout.text)
    if found.default is None:
        message = f"GRUB's default entry, {found.default_title!r}, loads no Linux, so there is nothing to sign"
        hint = "set `default` in the image's grub.cfg to an entry that does"
        raise InputError(Problem(reference="signed-boot-no-entry", message=message, hint=hint))
    return found.entries[found.default]


def command_line(layout: Layout) -> str:
    """The kernel arguments in the signed program, as the manifest has them; empty if it does not."""
    found = section_of(section_of(section_of(layout.facts, FACTS), "sections"), uki.COMMAND_LINE).get("text")
    return found if isinstance(found, str) else ""


def joined(arguments: Sequence[str]) -> str:
    """Kernel arguments as the text of a signed program's section."""
    return " ".join(map(quoted, arguments))


def expected(layout: Layout) -> dict[str, tuple[uki.Part, ...]]:
    """What the signed program must have of the layout's files, by section. Raises as `default_entry`."""
    entry = default_entry(layout)
    linux = layout.root / entry.kernel.lstrip("/")
    initrds: list[uki.Part] = []
    for path in entry.initrds:
        file = layout.root / path.lstrip("/")
        initrds += [file, bytes(-file.stat().st_size % ALIGNMENT)]
    return {
        uki.COMMAND_LINE: (joined(entry.arguments).encode(errors="surrogateescape"),),
        **({uki.INITRD: tuple(initrds)} if initrds else {}),
        uki.KERNEL: (linux,),
    }


def make(
    layout: Layout,
    stub: bytes,
    parts: Mapping[str, tuple[uki.Part, ...]],
    *,
    signer: Signer,
    programs: tuple[str, ...],
    work: Path,
) -> dict[str, object]:
    """Make the program of `stub` and `parts`, sign it, and write it to `layout` under each of its names.

    Returns facts for the manifest. Raises WorkError and OSError.
    """
    unsigned = work / "unsigned.efi"
    copy_hashed(uki.compose(stub, parts), unsigned)
    first, *others = programs
    target = layout.place(first)
    signer.sign(unsigned, target)
    unsigned.unlink()
    layout.record(first, hash_file(target))
    for path in others:
        layout.write(path, uki.blocks(target))
    certificate = read_certificate(signer.certificate)
    return {
        "programs": list(programs),
        "certificate": {"name": name(certificate), "sha256": fingerprint(certificate)},
        "sections": {key: _section_document(key, parts[key]) for key in sorted(parts)},
    }


def _section_document(key: str, parts: tuple[uki.Part, ...]) -> dict[str, object]:
    """A section as JSON values; the command line also as text."""
    counted = counted_parts(parts)
    text = {"text": b"".join(one for one in parts if isinstance(one, bytes)).decode(errors="replace")}
    shown = text if key == uki.COMMAND_LINE else {}
    return {"size": counted.size, "sha256": counted.sha256, **shown}


def counted_parts(parts: tuple[uki.Part, ...]) -> SizeAndDigest:
    """Size and digest of a section's content. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    for part in parts:
        for block in uki.blocks(part):
            digest.update(block)
            size += len(block)
    return SizeAndDigest(size=size, sha256=digest.hexdigest())
