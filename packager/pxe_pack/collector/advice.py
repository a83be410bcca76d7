"""What to do about a node: after a failure, in the words of the journal's catalog; or where its boot has stopped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from pxe_fetch.contract.paths import MessageId
from pxe_pack.unit import unit_files

_SILENT: Mapping[str, str] = MappingProxyType(
    {
        "DHCP": "It asked for an address and was not sent its boot loader. Check its cable and its firmware's "
        "messages, that DHCP names this server and the boot file, and that nothing in between drops UDP port "
        "69 (TFTP).",
        "shim": "It loaded shim and did not get GRUB. Its screen says why: Secure Boot refuses GRUB, GRUB is missing "
        "beside shim, or the connection was lost.",
        "GRUB": "It loaded GRUB or iPXE and did not get a kernel. If it shows GRUB's prompt, GRUB did not find "
        "grub.cfg: beside a DHCP proxy, GRUB before 2.12 needs your DHCP server to send next-server. "
        "Otherwise its screen names the file that is missing.",
        "kernel": "It loaded its kernel and nothing after it. Its console has the reason, often a kernel panic: "
        "compare root= and the initrd in grub.cfg with the layout (`pxe-pack check DIR`), and boot it in a virtual "
        "machine (`pxe-pack boot DIR`).",
        "initrd": "It loaded kernel and initrd and did not ask for its root filesystem. Its console has the reason: a "
        "kernel panic, a network card without a driver in the initrd, or a wrong root=live:URL. `pxe-pack "
        "boot DIR` shows if the layout boots elsewhere.",
        "ISO": "It fetched the ISO, and its agent has not reported. Its console has the reason: not enough memory, "
        "or services that do not start. If it runs, look at `journalctl -u pxe-fetch` there, and at `report` "
        "in fetch.yaml.",
        "agent": "Its agent started and was not heard of again: the node was switched off, or has lost its network. If "
        "it runs, `pxe-fetch status` there shows how far it is.",
    }
)
_ENTRY = re.compile(rf"^-- {MessageId.FAILED}\n(.*?)(?=^-- |\Z)", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^    (\d+)  (.*(?:\n        .*)*)", re.MULTILINE)


def advice(state: str, stage: str, exit_code: int | None) -> str:
    """What to do about a node in this state at this stage; "" if nothing is wrong, or if it is not known."""
    if state == "silent":
        return _SILENT.get(stage, _SILENT["agent"])
    return _texts().get(exit_code or 0, "") if state in ("failed", "degraded") else ""


@cache
def _texts() -> dict[int, str]:
    found = _ENTRY.search((unit_files() / "pxe-fetch.catalog").read_text(encoding="utf-8"))
    return {int(code): " ".join(text.split()) for code, text in _CODE.findall(found[1] if found else "")}
