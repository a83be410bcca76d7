"""The root filesystem of a shape as a folder, with its kernel and initrd in boot/, as one has who made it by hand."""

import tarfile
import tempfile
from pathlib import Path

from liveos import shapes, tree
from liveos.cache import Cache
from liveos.shapes import Shape

_CMDLINE = "root=/dev/vda2 ro selinux=0 mitigations=off console=tty0 console=ttyS0,115200\n"


def unpack(shape: Shape, folder: Path, *, cache: Cache | None = None) -> Path:
    """Make the folder; devices are left out, and owners too where we are not root. Raises BuildError."""
    made = shapes.system(shape, cache=cache or Cache())
    with tempfile.TemporaryFile() as stream:
        tree.write(stream, base=made.base, over=made.over())
        stream.seek(0)
        with tarfile.open(fileobj=stream) as archive:
            # As tarfile's "Supporting older Python versions" has it: Python 3.11.2 knows no filters.
            archive.extraction_filter = getattr(tarfile, "fully_trusted_filter", lambda member, _path: member)
            for member in archive:
                if not member.isdev():
                    archive.extract(member, folder, numeric_owner=True)
    boot = {f"vmlinuz-{made.boot.release}": made.boot.kernel, f"initramfs-{made.boot.release}.img": made.boot.initrd}
    (folder / "boot").mkdir(exist_ok=True)
    for name, source in boot.items():
        (folder / "boot" / name).write_bytes(source.read_bytes())
    (folder / "etc/kernel").mkdir(exist_ok=True)
    (folder / "etc/kernel/cmdline").write_text(_CMDLINE)
    return folder
