"""Gives the boot entries of a layout other kernel arguments, in place: only the files that differ are exchanged.

They are written beside the layout and renamed into it, the manifest and the checksums last.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pxe_pack.cleanup import committing
from pxe_pack.image.bootloader import grub_in
from pxe_pack.image.grub.config import GRUB_CFG
from pxe_pack.image.grub.limits import GrubSyntaxError
from pxe_pack.image.grub.script import parse
from pxe_pack.image.limits import Limit
from pxe_pack.layout.entries import Menu, menu
from pxe_pack.layout.files import found_below
from pxe_pack.layout.ipxe import IPXE_SCRIPT
from pxe_pack.layout.kernel_arguments import edited, kernels, unsuitable, with_arguments
from pxe_pack.layout.layout import Layout
from pxe_pack.layout.manifest import MANIFEST, SUMS, Kind
from pxe_pack.output import locked
from pxe_pack.tools import InputError
from pxe_pack.trust import sign_again, signed_boot
from pxe_pack.trust.signing import Signer


@dataclass(frozen=True, kw_only=True, slots=True)
class NewEntries:
    """The new text of each file with entries, by path: grub.cfg, and those beside it that load a kernel."""

    layout: Layout
    texts: Mapping[str, str]
    edit: sign_again.Edit  # of the words of each entry

    @classmethod
    def of(cls, layout: Layout, added: Mapping[str, str], *, replaces: Collection[str]) -> NewEntries:
        """The entries of `layout` with the arguments `added` in place of those called `replaces`. Raises InputError."""
        texts = {path: with_arguments(text, added, replaces=replaces) for path, text in _with_entries(layout)}
        return cls(layout=layout, texts=texts, edit=partial(edited, added=added, replaces=replaces))

    def menu(self) -> Menu:
        """The menu that nodes would get. Raises InputError if GRUB cannot run grub.cfg."""
        try:
            return menu(self.texts[GRUB_CFG], read=self._read, grub=grub_in(self.layout.root))
        except GrubSyntaxError as error:
            raise unsuitable(self.layout.root / GRUB_CFG, error) from error

    def _read(self, path: str) -> str:
        return self.texts.get(path.lstrip("/"), "") or self.layout.text(path)

    def write(
        self, root: Path, *, facts: Mapping[str, object], work: Path, signer: Signer | None = None
    ) -> tuple[str, ...]:
        """Write the new boot files, with boot.ipxe and a manifest of `facts`, to the folder `root` beside the layout.

        A signed boot is signed again by `signer`, with temporary files in `work`. Returns the paths of the files that
        differ. Raises InputError as `menu` does, or if the signer is missing; WorkError, and OSError.
        """
        if problems := signed_boot.key_problems(self.layout, signer):
            raise InputError(*problems)
        signed = signed_boot.programs(self.layout)
        new = Layout(root=root, urls=self.layout.urls, files=dict(self.layout.files))
        for path in self.layout.of_kind(Kind.BOOT):  # which boot.ipxe is made from
            if path not in self.texts and path not in (IPXE_SCRIPT, *signed):
                new.take_over(path, self.layout)
        for path, text in self.texts.items():
            content = text.encode(errors="surrogateescape")
            if path not in self.layout.files:
                new.place(path).write_bytes(content)
            elif path != GRUB_CFG:
                new.write(path, [content])
        try:
            new.write_scripts(self.texts[GRUB_CFG], program=signed[0] if signed else "")
            boot = sign_again.write_again(new, self.layout, signer, edit=self.edit, work=work)
        except GrubSyntaxError as error:
            raise unsuitable(self.layout.root / GRUB_CFG, error) from error
        new.finish({**facts, **boot})
        return tuple(self._differing(root))

    def commit(self, root: Path) -> None:
        """Put what `write` has written to `root` into the layout.

        Raises WorkError if another run has changed the layout since it was read, and OSError.
        """
        with locked(self.layout.root.parent):
            self.layout.check_unchanged()
            with committing():
                for path in [*self._differing(root)]:
                    (root / path).replace(self.layout.root / path)

    def _differing(self, root: Path) -> Iterator[str]:
        for path in (*signed_boot.programs(self.layout), *sorted(self.texts), IPXE_SCRIPT, MANIFEST, SUMS):
            now = self.layout.root / path
            if not now.is_file() or now.read_bytes() != (root / path).read_bytes():
                yield path


def _with_entries(layout: Layout) -> Iterator[tuple[str, str]]:
    """Path and text of each file with entries. A site's own, for grub.cfg to `source`, may not be in the manifest."""
    yield GRUB_CFG, layout.text(GRUB_CFG)
    for path in sorted(found_below(layout.root)):
        listed = layout.files.get(path)
        if path != GRUB_CFG and _may_be_script(path) and (listed is None or listed.kind is Kind.BOOT):
            text = _script(layout.root / path)
            if text:
                yield path, text


def _may_be_script(path: str) -> bool:
    """True for a name that sites give to a script of GRUB's, or by which GRUB looks for that of a node.

    That is grub.cfg-01-MAC or grub.cfg-IP (GRUB's manual, "Network": net_config, grub-core/net/net.c).
    """
    return path.endswith(".cfg") or path.rpartition("/")[2].startswith("grub.cfg-")


def _script(file: Path) -> str:
    """The text of a script of GRUB's that loads a kernel; empty if it is something else."""
    about = file.lstat()
    if not stat.S_ISREG(about.st_mode) or about.st_size > Limit.GRUB_BYTES.most:
        return ""
    text = file.read_text(encoding="utf-8", errors="surrogateescape")
    try:
        return text if any(kernels(parse(text))) else ""
    except GrubSyntaxError:
        return ""
