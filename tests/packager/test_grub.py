"""GRUB configurations rewritten for the network: those of several distributions, as their tools write them."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxe_pack.image.grub.network import Files, NetworkConfig, UnsuitableGrubConfigError, for_network
from pxe_pack.image.grub.script import GrubSyntaxError, parse, quoted, unquoted, walk

URL = "http://10.0.0.1/liveos.iso"

AZURE_LINUX_2 = """\
set timeout=0
set bootprefix=/boot
search -n -u 1b2c-3d4e -s

load_env -f $bootprefix/mariner.cfg
if [ -f $bootprefix/systemd.cfg ]; then
\tload_env -f $bootprefix/systemd.cfg
else
\tset systemd_cmdline=net.ifnames=0
fi
if [ -f $bootprefix/grub2/grubenv ]; then
\tload_env -f $bootprefix/grub2/grubenv
fi

menuentry "CBL-Mariner" {
\tlinux $bootprefix/$mariner_linux security=selinux selinux=1 rd.auto=1 root=live:LABEL=CDROM \\
\t\t$mariner_cmdline $systemd_cmdline rd.live.image rd.live.dir=liveos rd.live.squashimg=rootfs.img $kernelopts
\tif [ -f $bootprefix/$mariner_initrd ]; then
\t\tinitrd $bootprefix/$mariner_initrd
\tfi
}
"""
MARINER_CFG = "mariner_linux=vmlinuz-5.15\nmariner_initrd=initrd.img-5.15\nmariner_cmdline=init=/lib/systemd/systemd\n"

IMAGE_CUSTOMIZER_TWICE = """\
set timeout=5
menuentry 'Azure Linux' {
    search --label CDROM --set root
    linux /boot/vmlinuz-6.6 root=live:LABEL=CDROM rd.live.image rd.live.dir=liveos rd.live.overlay=1 \\
        rd.live.image rd.live.dir=liveos my.option="two words" rd.live.overlay=1
    initrd /boot/initrd.img-6.6
}
"""

FEDORA = """\
set pager=1
if [ -f ${config_directory}/grubenv ]; then
  load_env -f ${config_directory}/grubenv
elif [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="0"
fi
function load_video {
  if [ x$feature_all_video_module = xy ]; then
    insmod all_video
  else
    insmod efi_gop
  fi
}
if [ x$feature_platform_search_hint = xy ]; then
  search --no-floppy --fs-uuid --set=root --hint='hd0,gpt2' 9e1c
else
  search --no-floppy --fs-uuid --set=root 9e1c
fi
set root='hd0,gpt2'
set menu_show_once=1; search --label X
menuentry 'Fedora' --class fedora --id 'a' {
\tload_video
\tlinux ($root)/images/pxeboot/vmlinuz root=live:CDLABEL=Fedora rd.live.image quiet \\
\t\trhgb
\tinitrd ($root)/images/pxeboot/initrd.img
}
submenu 'More' {
  menuentry 'Fedora, basic graphics' {
    linuxefi /images/pxeboot/vmlinuz root=live:CDLABEL=Fedora nomodeset; initrdefi /images/pxeboot/initrd.img; }
}
if [ -f  ${config_directory}/custom.cfg ]; then
  source ${config_directory}/custom.cfg
elif [ -z "${config_directory}" -a -f  $prefix/custom.cfg ]; then
  source $prefix/custom.cfg
fi
"""

KIWI = """\
# kiwi generated one time grub2 config file
if ! search --file --set=root /boot/0x5a4b; then echo lost; fi
set prefix=($root)/boot/grub2
set linux=linux
if [ "${grub_cpu}" = "x86_64" -o "${grub_cpu}" = "i386" ]; then
    if [ "${grub_platform}" = "efi" ]; then
        set linux=linuxefi
    fi
fi
if loadfont ($root)/boot/grub2/fonts/unicode.pf2 ; then
    terminal_output gfxterm
fi
menuentry "Live" --class os {
    echo Loading kernel...
    linux ($root)/boot/x86_64/loader/linux ${extra_cmdline} root=live:CDLABEL=CDROM rd.live.image console=ttyS0
    initrd ($root)/boot/x86_64/loader/initrd
}
"""

TWO_KERNELS = """\
set kernelopts="root=live:LABEL=CDROM rd.live.image quiet"
menuentry "6.6" {
linux /boot/vmlinuz-6.6 $kernelopts
initrd /boot/initrd.img-6.6
}
menuentry "5.15" {
linux /boot/vmlinuz-5.15 $kernelopts single
initrd /boot/early.img /boot/initrd.img-5.15
}
menuentry "memory test" { linux16 /boot/memtest }
"""

# Azure Linux 4 and Fedora: the entries are files of their own.
BLS = """\
set timeout=5
if [ -f ${config_directory}/grubenv ]; then
  load_env -f ${config_directory}/grubenv
elif [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="${saved_entry}"
fi
search --no-floppy --label CDROM --set=root
insmod blscfg
blscfg
if [ -f  ${config_directory}/custom.cfg ]; then
  source ${config_directory}/custom.cfg
fi
"""
BLS_ENTRY = """\
# by kernel-install
title Azure Linux ({version}) 4.0
version {version}
linux /vmlinuz-{version}
initrd /initramfs-{version}.img $tuned_initrd
options root=live:LABEL=CDROM rd.live.image site="two words" $kernelopts
grub_users $grub_users
grub_class azurelinux
"""

DEBIAN_LIVE = """\
source /boot/grub/config.cfg
if [ -e ($root)/boot/grub/$lang.cfg ]; then source ($root)/boot/grub/$lang.cfg; fi
menuentry "Live system (amd64)" --hotkey=l {
\tlinux\t/live/vmlinuz-6.1 boot=live components quiet splash root=live:LABEL=d-live rd.live.image findiso=${iso_path}
\tinitrd\t/live/initrd.img-6.1
}
submenu 'Advanced' {
\tsource /boot/grub/theme.cfg
}
"""

PRESENT = {
    "/boot/vmlinuz-6.12.9-1.azl4", "/boot/initramfs-6.12.9-1.azl4.img", "/boot/vmlinuz-6.12.10-1.azl4",
    "/boot/initramfs-6.12.10-1.azl4.img", "/live/vmlinuz-6.1", "/live/initrd.img-6.1", "/boot/grub/config.cfg",
    "/boot/grub/theme.cfg",
    "/boot/vmlinuz-5.15", "/boot/initrd.img-5.15", "/boot/mariner.cfg", "/boot/grub2/grubenv", "/boot/vmlinuz-6.6",
    "/boot/initrd.img-6.6", "/images/pxeboot/vmlinuz", "/images/pxeboot/initrd.img", "/boot/x86_64/loader/linux",
    "/boot/x86_64/loader/initrd", "/boot/early.img", "/boot/memtest",
}  # fmt: skip
ENTRIES = "/boot/loader/entries"
TEXTS = {
    "/boot/mariner.cfg": MARINER_CFG,
    "/boot/grub/config.cfg": "set default=0\nloadfont unicode\nset timeout=0\n",
    "/boot/grub/theme.cfg": "set menu_color_normal=white/black\n",
    **{
        f"{ENTRIES}/0f1e-{version}.conf": BLS_ENTRY.format(version=version)
        for version in ("6.12.9-1.azl4", "6.12.10-1.azl4")
    },
    f"{ENTRIES}/0f1e-0-rescue.conf": BLS_ENTRY.format(version="0-rescue"),  # of a kernel that is not on the medium
    f"{ENTRIES}/firmware.conf": "title Firmware\nefi /EFI/tool.efi\n",
}
FILES = Files(
    exists=PRESENT.__contains__,
    read=lambda path: TEXTS.get(path, ""),
    names=lambda folder: [path.rpartition("/")[2] for path in TEXTS if path.rpartition("/")[0] == folder],
)
CORPUS = {
    "azure-linux-2": AZURE_LINUX_2, "image-customizer-twice": IMAGE_CUSTOMIZER_TWICE, "fedora": FEDORA, "kiwi": KIWI,
    "two-kernels": TWO_KERNELS, "bls": BLS, "debian-live": DEBIAN_LIVE,
}  # fmt: skip


def rewritten(text: str, *, url: str = URL) -> NetworkConfig:
    return for_network(text, boot_url=url, files=FILES)


def check_by_grub(text: str) -> None:
    subprocess.run(["grub-script-check"], input=text.encode(), check=True, capture_output=True)


@pytest.mark.parametrize("name", CORPUS)
def test_a_configuration_of_the_corpus(name: str) -> None:
    check_by_grub(CORPUS[name])
    config = rewritten(CORPUS[name])
    check_by_grub(config.text)
    assert "search" not in config.text
    assert " -f " not in config.text.replace("load_env -f", "")
    assert "set root=" not in config.text
    for arguments in config.arguments:
        assert arguments.count(f"root=live:{URL}") == 1
        assert sum(argument.startswith("root=") for argument in arguments) == 1
        assert len(set(arguments)) == len(arguments)
        assert {"ip=dhcp", "rd.live.azldownloader=enable"} <= set(arguments)
    assert all(f"/{source}" in PRESENT for source in config.files.values())
    assert all(target.startswith("boot/") for target in config.files)


@pytest.mark.parametrize("name", CORPUS)
def test_rewriting_again_changes_nothing(name: str) -> None:
    config = rewritten(CORPUS[name])
    layout = {f"/{target}" for target in config.files} | PRESENT
    again = for_network(config.text, boot_url=URL, files=Files(exists=layout.__contains__, read=FILES.read))
    assert again.text == config.text


@pytest.mark.parametrize("name", CORPUS)
def test_another_url_takes_the_place_of_the_first(name: str) -> None:
    first = rewritten(CORPUS[name], url="http://192.0.2.1/old.iso").text
    config = rewritten(CORPUS[name])
    layout = {f"/{target}" for target in config.files} | PRESENT
    again = for_network(first, boot_url=URL, files=Files(exists=layout.__contains__, read=FILES.read))
    assert again.text == config.text


def test_variables_lead_to_the_kernel_and_the_guard_is_gone() -> None:
    config = rewritten(AZURE_LINUX_2)
    assert config.files == {
        "boot/initrd.img-5.15": "boot/initrd.img-5.15",
        "boot/mariner.cfg": "boot/mariner.cfg",  # without its variables there is no kernel
        "boot/vmlinuz-5.15": "boot/vmlinuz-5.15",
    }
    assert "if [ -f" not in config.text
    assert "\tinitrd $bootprefix/$mariner_initrd\n" in config.text
    # the file that the else was for is not there, so that is what holds
    assert "set systemd_cmdline=net.ifnames=0" in config.text
    assert "$kernelopts" in config.text


def test_repeated_arguments_go_and_the_users_stay() -> None:
    text = rewritten(IMAGE_CUSTOMIZER_TWICE).text
    for argument in ("rd.live.image", "rd.live.dir=liveos", 'my.option="two words"'):
        assert text.count(argument) == 1
    assert text.count("rd.live.overlay=1") == 1
    assert text.count("rd.live.overlay.nouserconfirmprompt") == 1


def test_files_outside_boot_are_named_where_the_layout_has_them() -> None:
    config = rewritten(FEDORA)
    assert config.files == {"boot/initrd.img": "images/pxeboot/initrd.img", "boot/vmlinuz": "images/pxeboot/vmlinuz"}
    assert "\tlinux /boot/vmlinuz root=live:" in config.text
    assert "initrdefi /boot/initrd.img; }" in config.text


def test_every_entry_is_kept() -> None:
    config = rewritten(TWO_KERNELS)
    assert config.kernels == ("boot/vmlinuz-6.6", "boot/vmlinuz-5.15", "boot/memtest")
    assert len(config.arguments) == 2
    assert "single" in config.arguments[1]
    assert "linux16 /boot/memtest }" in config.text  # boots no LiveOS, so it is left alone
    assert "boot/early.img" in config.files


def test_entries_in_files_of_their_own_become_menu_entries_the_newest_first() -> None:
    config = rewritten(BLS)
    assert config.kernels == ("boot/vmlinuz-6.12.10-1.azl4", "boot/vmlinuz-6.12.9-1.azl4")
    assert config.initrds == ("boot/initramfs-6.12.10-1.azl4.img", "boot/initramfs-6.12.9-1.azl4.img")
    assert "blscfg" not in config.text
    assert "menuentry 'Azure Linux (6.12.9-1.azl4) 4.0' --class azurelinux --id 0f1e-6.12.9-1.azl4 {" in config.text
    assert config.text.count('site="two words" $kernelopts') == 2
    assert "rescue" not in config.text


def test_entries_none_of_which_can_be_booted_are_refused_by_name() -> None:
    texts = {f"{ENTRIES}/a.conf": BLS_ENTRY.format(version="1")}
    files = Files(exists=lambda _: False, read=lambda path: texts.get(path, ""), names=lambda _: ["a.conf"])
    with pytest.raises(UnsuitableGrubConfigError, match=r"a\.conf names /vmlinuz-1, which the image does not have"):
        for_network(BLS, boot_url=URL, files=files)


def test_an_image_without_any_such_entry_is_told_where_they_were_looked_for() -> None:
    files = Files(exists=lambda _: False, read=lambda _: "")
    with pytest.raises(UnsuitableGrubConfigError, match="there are none in /efi/loader or /boot/loader/entries"):
        for_network("blscfg /efi/loader/\n", boot_url=URL, files=files)


def test_what_is_sourced_is_taken_in() -> None:
    config = rewritten(DEBIAN_LIVE)
    assert "source /boot" not in config.text
    assert "loadfont unicode" in config.text
    assert "set menu_color_normal" in config.text
    assert config.files == {"boot/vmlinuz-6.1": "live/vmlinuz-6.1", "boot/initrd.img-6.1": "live/initrd.img-6.1"}


def test_a_file_that_sources_itself_is_refused() -> None:
    files = Files(exists=lambda _: True, read=lambda _: "source /a\n")
    with pytest.raises(UnsuitableGrubConfigError, match="includes /a recursively"):
        for_network("source /a\n", boot_url=URL, files=files)


def test_a_network_setting_of_the_user_is_kept() -> None:
    text = "menuentry x {\n linux /boot/vmlinuz-6.6 root=live:LABEL=X ip=eth0:dhcp6 rd.live.image\n}\n"
    assert "ip=dhcp " not in rewritten(text).text
    assert "ip=eth0:dhcp6" in rewritten(text).text


def test_arguments_for_init_stay_behind_the_dashes() -> None:
    text = "menuentry x {\n linux /boot/vmlinuz-6.6 root=live:LABEL=X quiet -- quiet\n}\n"
    assert rewritten(text).text.endswith("ip=dhcp rd.live.azldownloader=enable -- quiet\n}\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("menuentry x { linux /boot/gone root=live:LABEL=X }", "loads /boot/gone, which the image does not have"),
        (
            "menuentry x { linux /boot/$what root=live:LABEL=X }",
            "but nothing in the image sets that variable",
        ),
        ("", "no entry boots a LiveOS"),
    ],
)
def test_what_cannot_boot_is_refused(text: str, why: str) -> None:
    with pytest.raises(UnsuitableGrubConfigError, match=why):
        rewritten(text)


def test_entries_that_boot_no_liveos_keep_their_arguments() -> None:
    """They may boot a full-os image, which its initrd shows."""
    config = rewritten("menuentry x { linux /boot/vmlinuz-6.6 root=/dev/sda1 quiet }\n")
    assert not config.live
    assert config.arguments == (("root=/dev/sda1", "quiet"),)
    assert "ip=dhcp" not in config.text


def test_blocks_without_end_are_refused() -> None:
    with pytest.raises(GrubSyntaxError, match="more than 64 blocks"):
        parse("submenu x { " * 5000 + "}" * 5000)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("menuentry x {\n", 1),
        ("\nif [ a ]; then\necho\n", 3),
        ("fi\n", 1),
        ("a\nb 'c\n", 2),
        ("a }\n", 1),
        ("if x\nfi", 2),
    ],
)
def test_what_is_no_script_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(GrubSyntaxError) as caught:
        parse(text)
    assert caught.value.line == line


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)
PIECES = st.sampled_from(
    [
        "a",
        "$x",
        "${y}",
        "'q q'",
        '"d $z"',
        "\\;",
        "=",
        " ",
        "\t",
        "\\\n",
        "\n",
        ";",
        "# c\n",
        "x{y",
        "search",
        "/boot/k",
    ]
)


@given(WORDS)
def test_a_quoted_word_stands_for_itself(text: str) -> None:
    (command,) = walk(parse(f"echo {quoted(text)}\n"))
    assert [unquoted(word) for word in command.words] == ["echo", text]


@given(st.lists(PIECES))
def test_a_script_comes_back_as_it_was(pieces: list[str]) -> None:
    text = "".join(pieces).replace("x{y", "x_y")
    assert "".join(map(str, parse(text))) == text


@given(st.lists(st.from_regex(r"[a-z][a-z.]{0,8}(=[a-z0-9,:/ ]{0,8})?", fullmatch=True)))
def test_arguments_of_the_user_are_kept_in_order(arguments: list[str]) -> None:
    own = [argument for argument in arguments if not argument.startswith(("root=", "ip="))]
    words = " ".join(map(quoted, own))
    config = rewritten(f"menuentry x {{\nlinux /boot/vmlinuz-6.6 root=live:LABEL=X {words}\n}}\n")
    (got,) = config.arguments
    assert [argument for argument in got if argument in own] == list(dict.fromkeys(own))
    assert got[0] == f"root=live:{URL}"
