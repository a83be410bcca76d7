"""Open the input of a pack: an image as it is, or the ISO that is first built from a root filesystem."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from pxe_pack.image import liveos
from pxe_pack.image.limits import limits_of
from pxe_pack.image.liveos import LiveImage
from pxe_pack.image.open_media import StagingFolder, below_tmpdir
from pxe_pack.image.rootfs_source import detect_rootfs
from pxe_pack.liveiso.build import StepContext, build_iso


def _no_step(_: str) -> AbstractContextManager[object]:
    return nullcontext()


@contextmanager
def opened(
    path: Path,
    *,
    boot_url: str,
    staging: StagingFolder = below_tmpdir,
    boot_loader: Path | None = None,
    step: StepContext = _no_step,
) -> Iterator[LiveImage]:
    """The image at `path`: an ISO, a pxe-dir, a pxe-tar, or the ISO built from a root filesystem.

    The ISO is built in a folder provided by `staging`, with the boot loaders in the folder `boot_loader` if given;
    `step` wraps each step of that. An empty `boot_url` leaves `root=live:` unchanged. Raises InputError if the image
    cannot boot over PXE, and WorkError if building the ISO fails.
    """
    with limits_of(path):
        source = detect_rootfs(path)
        if source is None:
            with liveos.opened(path, boot_url=boot_url, staging=staging) as image:
                yield image
            return
        with (
            staging() as folder,
            build_iso(source, boot_url=boot_url, boot_loader=boot_loader, staging=folder, step=step) as made,
            liveos.examined(
                made.iso, path=path, boot_url=boot_url, loaders=made.loaders, rootfs_source=source
            ) as image,
        ):
            yield image
