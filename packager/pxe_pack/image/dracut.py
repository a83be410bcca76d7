"""Kernel arguments as dracut's live modules read them, with the older names that they still accept.

Sources: dracut, dracut-lib.sh (getarg, getargbool), and dmsquash-live-root.sh, which calls them as in
`getarg rd.live.dir -d live_dir`. It has no older name for rd.live.squashimg. Other than in the kernel, `-` and `_`
differ.
"""

from __future__ import annotations

from collections.abc import Sequence

LIVE_DIR = ("rd.live.dir", "live_dir")
SQUASH_IMAGE = ("rd.live.squashimg",)
LIVE_RAM = ("rd.live.ram", "live_ram")
WRITABLE_IMAGE = ("rd.writable.fsimg", "writable_fsimg")
OVERLAY = ("rd.live.overlay", "overlay")
OVERLAY_SIZE = ("rd.live.overlay.size",)
OVERLAY_THIN = ("rd.live.overlay.thin",)
OVERLAYFS = ("rd.live.overlay.overlayfs", "rd.overlayfs")
CHECK = ("rd.live.check", "check")
MIN_MEMORY = ("rd.minmem",)

_FALSE = frozenset({"0", "no", "off", "false"})


def getarg(arguments: Sequence[str], names: Sequence[str]) -> str | None:
    """The value of the first of `names` that has one; empty if it is given without `=`, None if none is given.

    The last argument of a name counts; if its value is empty, it is as if there were none of that name.
    """
    for name in names:
        last = next((one for one in reversed(arguments) if one.partition("=")[0] == name), None)
        if last is not None and last != f"{name}=":
            return last.partition("=")[2]
    return None


def getargbool(arguments: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the first of `names` that is given is on. An older name is on with any value."""
    name, *older = names
    value = getarg(arguments, [name])
    if value is None:
        return any(getarg(arguments, [one]) is not None for one in older)
    return value not in _FALSE
