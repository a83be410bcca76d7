"""boot.ipxe says what grub.cfg does."""

from __future__ import annotations

import re
import subprocess
import threading
from pathlib import Path

import pytest

from packing.grub_emu import tried
from pxe_pack.layout.ipxe import FAILED, IPXE_SCRIPT, script

ONE = """\
set timeout=0
load_env
menuentry "Azure Linux $flavour" {
\tlinux /boot/vmlinuz-6.6.1+x root=live:http://10.0.0.1/l.iso $kernelopts $unset 'dyndbg=file a.c +p'
\tinitrd /boot/microcode.img /boot/initrd.img
}
"""
ENVIRONMENT = "# GRUB Environment Block\nkernelopts=quiet\n#####"


def lines(grub_cfg: str, *, environment: str = "") -> list[str]:
    return script(grub_cfg, read=lambda path: environment if path == "/boot/grub2/grubenv" else "").splitlines()


def test_the_entry_with_its_files_relative_and_its_arguments_as_grub_hands_them_on() -> None:
    told = lines(ONE, environment=ENVIRONMENT)
    assert told[0] == "#!ipxe"
    assert [line for line in told if line.startswith(("kernel", "initrd", "boot", "menu"))] == [
        (
            "kernel boot/vmlinuz-6.6.1+x initrd=microcode.img initrd=initrd.img root=live:http://10.0.0.1/l.iso quiet"
            ' "dyndbg=file a.c +p" || goto failed'
        ),
        "initrd --name microcode.img boot/microcode.img || goto failed",
        "initrd --name initrd.img boot/initrd.img || goto failed",
        "boot || goto failed",
    ]


def entries(head: str) -> str:
    bodies = [f'menuentry "{name}" {{\n linux /boot/{name} a={name}\n initrd /boot/i\n}}\n' for name in ("one", "two")]
    return head + "".join(bodies)


def test_several_entries_make_a_menu_with_the_default_and_the_time_of_grubs() -> None:
    told = lines(entries("set default=1\nset timeout=5\n"))
    assert [line for line in told if line.startswith("item")] == ["item entry0 one", "item entry1 two"]
    choose = next(line for line in told if line.startswith("choose"))
    assert choose == "choose --default entry1 --timeout 5000 chosen && goto ${chosen} || goto entry1"
    waiting = lines(entries("set default=two\n"))
    assert "choose --default entry1 chosen && goto ${chosen} || goto entry1" in waiting


def test_without_a_wait_the_default_boots_at_once() -> None:
    told = lines(entries("set default=1\nset timeout=0\n"))
    assert not [line for line in told if line.startswith(("menu", "choose"))]
    assert told[told.index(":start") + 1] == "goto entry1"


def test_an_argument_that_ipxe_would_expand_is_not_handed_on() -> None:
    told = lines("menuentry x {\n linux /boot/k 'a=${net0/mac}'\n initrd /boot/i\n}\n")
    assert not [line for line in told if line.startswith("kernel")]
    assert [line for line in told if "skipped, because iPXE would expand" in line]


def started(told: list[str]) -> str:
    """The kernel of the entry that boots when nobody chooses."""
    entry = next(line for line in told if line.startswith("goto entry")).removeprefix("goto ")
    return told[told.index(f":{entry}") + 2].split()[1]


SUBMENU = 'submenu "more > less" {\n' + entries("") + "}\n"


@pytest.mark.parametrize(
    ("default", "kernel"),
    [
        ("1", "boot/two"),
        ("two", "boot/two"),
        ("2>1", "boot/in-two"),
        ("more >> less>in-two", "boot/in-two"),
        ("more > less>in-two", "boot/one"),
        ("an-id", "boot/kept"),
        ("4", "boot/one"),  # `fwsetup`, which iPXE does not have
        ("nowhere", "boot/one"),
    ],
)
def test_it_boots_the_default_of_grub(default: str, kernel: str) -> None:
    more = SUBMENU.replace("one", "in-one").replace("two", "in-two")
    kept = 'menuentry "kept" --id an-id {\n linux /boot/kept\n}\nmenuentry "Firmware" {\n fwsetup\n}\n'
    text = "load_env\nset default=${saved_entry}\nset timeout=0\n" + entries("") + more + kept
    environment = f"# GRUB Environment Block\nsaved_entry={default}\n"
    if "kept" in text and " " in default:
        text = text.replace("${saved_entry}", '"${saved_entry}"')
    assert started(lines(text, environment=environment)) == kernel


def test_an_entry_that_cannot_be_loaded_is_followed_by_what_grub_falls_back_to() -> None:
    told = lines(entries("set default=1\nset fallback='0 1'\nset timeout=0\n"))
    assert told[told.index(":start") + 1 :][:2] == ["set next fallback0", "goto entry1"]
    assert told[told.index(":failed") + 1] == "goto ${next}"
    first, second = (told.index(f":fallback{number}") for number in (0, 1))
    assert told[first:second][-3:] == ["imgfree", "set next fallback1", "goto entry0"]
    assert told[second:][3:5] == ["set next retry", "goto entry1"]
    assert told[told.index(":retry") + 3 :] == ["imgfree", "goto start"]


def loaded_by_ipxe(text: str, folder: Path) -> list[str]:
    """The kernels that QEMU's iPXE asks for, in their order, from a server that has nothing but the script."""
    (folder / IPXE_SCRIPT).write_text(script(text, read=lambda _: ""))
    network = f"user,id=n,tftp={folder},bootfile={IPXE_SCRIPT}"
    command = ["qemu-system-x86_64", "-accel", "tcg", "-m", "128", "-nographic", "-nodefaults", "-serial", "stdio"]
    command += ["-netdev", network, "-device", "virtio-net-pci,netdev=n", "-boot", "n"]
    seen = ""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as qemu:
        assert qemu.stdout
        watch = threading.Timer(60, qemu.kill)
        watch.start()
        for line in qemu.stdout:
            seen += line
            if FAILED in line:
                break
        watch.cancel()
        qemu.kill()
    assert FAILED in seen, seen
    return re.findall(r"boot/(\w+)\.\.\.", seen)  # how it says that there is none depends on its version


@pytest.mark.parametrize("default", ["an-id", "more > less>in-two", "more >> less>in-two", "2>1"])
def test_ipxe_loads_what_grub_loads_and_in_the_same_order(default: str, tmp_path: Path) -> None:
    more = SUBMENU.replace("one", "in-one").replace("two", "in-two").replace("in-", "in")
    kept = 'menuentry "kept" --id an-id {\n linux /boot/kept\n}\n'
    text = (
        f'set default="{default.replace("in-", "in")}"\nset fallback="1 2 0"\nset timeout=0\n'
        + entries("")
        + more
        + kept
    )
    by_grub = [words[0].removeprefix("/boot/") for words in tried(text, tmp_path)]
    assert by_grub
    assert loaded_by_ipxe(text, tmp_path) == by_grub
