"""Open an image according to what it is: an ISO, a folder of boot files, or an archive of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from pxe_fetch.contract.problem import Problem
from pxe_pack.cleanup import temporary_folder
from pxe_pack.image import archive, media
from pxe_pack.image.iso.reader import Iso, is_iso, open_iso
from pxe_pack.image.media import Media, MediaEntry
from pxe_pack.tools import InputError

StagingFolder = Callable[[], AbstractContextManager[Path]]


def below_tmpdir() -> AbstractContextManager[Path]:
    """A folder below $TMPDIR, deleted when the context ends."""
    return temporary_folder(prefix="pxe-pack-")


@contextmanager
def open_media(path: Path, *, staging: StagingFolder) -> Iterator[Media]:
    """Open the medium at `path`; an archive is unpacked in a folder provided by `staging`.

    Raises InputError if it is not a medium, or cannot be read.
    """
    if path.is_dir():
        yield media.folder(path)
    elif path.is_file() and _is_archive(path):
        with staging() as folder:
            yield media.folder(archive.unpack(path, folder), input_path=path)
    else:
        with open_iso(path) as image:
            yield image


def _is_archive(path: Path) -> bool:
    try:
        return archive.is_archive(path)
    except OSError:  # reported when it is opened
        return False


@contextmanager
def live_iso(medium: Media) -> Iterator[Iso]:
    """The ISO with the LiveOS: `medium` itself, or the one in it. Raises InputError if there are none, or several."""
    if isinstance(medium, Iso):
        yield medium
        return
    with open_iso(medium.path / _the_one_iso(medium).path) as image:
        yield image


def _the_one_iso(medium: Media) -> MediaEntry:
    """The ISO nearest to the top of the folder, where Image Customizer puts it; recognised by content."""
    images = [entry for entry in medium.entries.values() if entry.is_file and is_iso(medium, entry)]
    nearest = min((entry.path.count("/") for entry in images), default=0)
    candidates = [entry for entry in images if entry.path.count("/") == nearest]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(sorted(entry.path for entry in candidates))
        raise InputError(
            Problem(
                reference="image-two-isos",
                message=f"{medium.input_path} has more than one ISO, but only one can be the LiveOS: {names}",
                hint="keep only the one that its grub.cfg boots",
            )
        )
    raise InputError(
        Problem(
            reference="image-no-iso",
            message=f"grub.cfg in {medium.input_path} boots a LiveOS with `root=live:`, but there is no ISO next to it",
            hint="use the complete folder, as Image Customizer wrote it, or the ISO itself",
        )
    )
