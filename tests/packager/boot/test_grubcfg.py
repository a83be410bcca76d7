"""The grub.cfg served in a test boot."""

from __future__ import annotations

import pytest

from pxe_pack.boot.grubcfg import for_test_boot, words
from pxe_pack.tools import InputError

CFG = """\
set timeout=5
menuentry "One" {
\tlinux /boot/vmlinuz root=live:http://10.0.0.1/a.iso \\
\t    quiet
\tinitrd /boot/initrd.img
}
menuentry "Two" {
  linuxefi $bootprefix/vmlinuz-6 root=live:http://10.0.0.1/a.iso#1  # with linux
}
"""


def test_every_entry_gets_the_arguments_and_the_menu_does_not_wait() -> None:
    assert (
        for_test_boot(CFG, added="console=ttyS0 a.b=http://10.0.2.4/x")
        == """\
set timeout=0
menuentry "One" {
\tlinux /boot/vmlinuz root=live:http://10.0.0.1/a.iso \\
\t    quiet console=ttyS0 a.b=http://10.0.2.4/x
\tinitrd /boot/initrd.img
}
menuentry "Two" {
  linuxefi $bootprefix/vmlinuz-6 root=live:http://10.0.0.1/a.iso#1 console=ttyS0 a.b=http://10.0.2.4/x  # with linux
}
"""
    )


def test_a_menu_that_waits_for_ever_still_does() -> None:
    assert "timeout=-1" in for_test_boot("set timeout=-1\n", added="a")


def test_what_grub_would_read_otherwise_is_quoted() -> None:
    assert (
        words(["u=http://h/?a=1&b=$c;d", "quiet", "dyndbg=file x +p"])
        == "'u=http://h/?a=1&b=$c;d' quiet 'dyndbg=file x +p'"
    )


def test_what_no_grub_cfg_can_carry_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be written"):
        words(["quiet", "a='b'"])
