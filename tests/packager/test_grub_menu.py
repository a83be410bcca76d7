"""Which entry GRUB boots: what the packager says is what Debian's GRUB, run as a program, does."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from packing.grub_emu import tried
from pxe_pack.image.grub.efi_image import read_grub
from pxe_pack.layout.entries import menu

# a GRUB of the same release, whose commands are known
GRUB = read_grub(Path("/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed").read_bytes())


def ours(text: str, folder: Path) -> list[list[str]]:
    """The kernels with their arguments that GRUB would try, in order, as the packager has it."""

    def read(path: str) -> str:
        file = folder / path.rpartition("/")[2]
        return file.read_text() if file.is_file() else ""

    found = menu(text, read=read, grub=GRUB)
    order = [found.default, *found.fallbacks]
    entries = [found.entries[number] for number in order if number is not None]
    return [[entry.kernel, *entry.arguments] for entry in entries]


def entry(title: str, kernel: str, *options: str) -> str:
    return f"menuentry {title} {' '.join(options)} {{\n  linux {kernel}\n  initrd /i\n}}\n"


MENU = (
    entry("'one'", "/1")
    + entry("'two > three'", "/2", "--class", "x", "--id", "second")
    + "submenu 'more' --id=deep {\n"
    + entry("one", "/3.1")
    + entry("'inner two'", "/3.2", "--id", "inner")
    + "submenu deeper {\n"
    + entry("a", "/3.3.1")
    + entry("'b'", "/3.3.2")
    + "}\n}\n"
    + entry("'6.12 kernel'", "/4", "--id", "4e1f-6.12")
)
DEFAULTS = (
    "", "0", "1", "2", "3", "7", "-1", "0x1", "010", "08", " 1", "1 ", "one", "two > three", "two >> three", "second",
    "more", "deep", "deep>", "deep>1", "deep>inner", "2>1", "2>inner two", "more>inner two", "2>2>1", "deep>deeper>b",
    "2>deeper>7", "2>7", "7>1", "1>1", "6.12 kernel", "4e1f-6.12", "nowhere", "nowhere>1", "second>x", ">1", "deep>>1",
    "one >",
)  # fmt: skip


@pytest.mark.parametrize("default", DEFAULTS)
def test_the_default_is_found_as_grub_finds_it(default: str, tmp_path: Path) -> None:
    text = f"set timeout=0\nset default='{default}'\n{MENU}"
    assert ours(text, tmp_path) == tried(text, tmp_path)


HEAD = "set timeout=0\n"
SCRIPTS = Path(__file__).with_name("grubscript")  # those in its folder `read` are read by others


@pytest.mark.parametrize("what", sorted(path.stem for path in SCRIPTS.glob("*.cfg")))
def test_a_script_does_what_it_does_in_grub(what: str, tmp_path: Path) -> None:
    for path in (SCRIPTS / "read").iterdir():
        shutil.copy(path, tmp_path)
    text = (SCRIPTS / f"{what}.cfg").read_text()
    expected = tried(text, tmp_path)
    assert expected
    assert ours(text, tmp_path) == expected


def test_carriage_returns_and_what_a_nul_cuts_off_are_nothing_to_grub_either(tmp_path: Path) -> None:
    text = f"{HEAD}set default=se\rcond\r\nmenuentry x {{ linux /0\n}}\n"
    text += "menuentry y --id second {\r\n  linux /v\rmlinuz a\\\r\nb c\0 'd\n  initrd /i\0;linux /2\n}\n"
    expected = tried(text, tmp_path)
    assert expected == [["/vmlinuz", "ab", "c"]]
    assert ours(text, tmp_path) == expected


TITLES = ("a", "b b", "1", "0x2", "c>d", "e>", "6.1", "'", "second", "")
NAMES = ("v", "w", "default", "none")


class Script:
    """A configuration made by chance."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._kernels = 0

    def text(self) -> str:
        lines = [self._setting() for _ in range(self._chance.randrange(4))]
        lines += [self._item(0) for _ in range(self._chance.randrange(1, 5))]
        lines += [self._setting() for _ in range(self._chance.randrange(3))]
        return "\n".join([*lines, f"set default={self._value()}\n" * self._chance.randrange(2)]) + "\n"

    def _value(self) -> str:
        pick = self._chance.choice
        path = ">".join(pick(TITLES).replace(">", pick((">", ">>"))) for _ in range(pick((1, 1, 2, 3))))
        return pick(
            (
                f'"{path}"',
                str(self._chance.randrange(5)),
                f'"{self._chance.randrange(4)}>{path}"',
                f'"${pick(("v", "w", "none"))}"',
            )
        )

    def _setting(self) -> str:
        pick = self._chance.choice
        kind = pick(("set", "assign", "unset", "export", "if"))
        if kind == "if":
            test = pick(('"$v"', "-z $w", "! x$v = x1", "a = b -o $v", "$v -lt 3", '( a ) -a -n "$w"', "$v -pgt k2"))
            return (
                f"if [ {test} ]; then\n{self._setting()}\nelif test a{pick(NAMES)} '<' $v; then\n{self._setting()}\nfi"
            )
        name = pick(NAMES if kind != "export" else NAMES[:2])
        return {"set": f"set {name}={self._value()}", "assign": f"{name}={self._value()}"}.get(kind, f"{kind} {name}")

    def _item(self, depth: int) -> str:
        pick = self._chance.choice
        title = "'" + pick(TITLES).replace("'", "'\\''") + "'"
        options = pick(
            ("", "--id second", f"--id={pick('abc')}", "--class linux", f"--id '{self._chance.randrange(3)}'")
        )
        if depth < 2 and self._chance.random() < 0.3:
            inner = "\n".join(self._item(depth + 1) for _ in range(self._chance.randrange(1, 4)))
            return f"submenu {title} {options} {{\n{self._setting()}\n{inner}\n}}"
        self._kernels += 1
        return f'menuentry {title} {options} {{\n{self._setting()}\nlinux /k{self._kernels} $v "$w" x$1\n}}'


@pytest.mark.parametrize("seed", range(40))
def test_scripts_made_by_chance_do_what_they_do_in_grub(seed: int, tmp_path: Path) -> None:
    text = HEAD + Script(seed).text()
    assert ours(text, tmp_path) == tried(text, tmp_path), text
