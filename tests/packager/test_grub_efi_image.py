"""Reading GRUB programs: prefix, script and modules, as written by grub-mkimage, and damaged."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxe_pack.image.fat import Fat, FatError
from pxe_pack.image.grub.efi_image import read_grub
from pxe_pack.image.limits import LimitError
from pxe_pack.image.pe.program import read_program

MODULES = ("normal", "linux", "efinet", "tftp", "memdisk", "fat")
SHIM = Path("/usr/lib/shim/shimx64.efi.signed")


def made(where: Path, *options: str | Path) -> bytes:
    target = where / "grub.efi"
    command = ["grub-mkimage", "-O", "x86_64-efi", "-o", target, *options, *MODULES]
    subprocess.run(command, check=True, capture_output=True)
    return target.read_bytes()


def fat(where: Path, files: dict[str, bytes], *, kib: int, bits: int) -> bytes:
    """A FAT filesystem, made with mkfs.fat and mtools."""
    image = where / "fat.img"
    image.write_bytes(b"")
    image.unlink()
    subprocess.run(["mkfs.fat", "-C", "-F", str(bits), "-s", "1", image, str(kib)], check=True, capture_output=True)
    for name, content in files.items():
        folders = name.split("/")[:-1]
        for depth in range(len(folders)):
            subprocess.run(["mmd", "-D", "s", "-i", image, "::/" + "/".join(folders[: depth + 1])], check=False)
        subprocess.run(["mcopy", "-i", image, "-", f"::/{name}"], input=content, check=True)
    return image.read_bytes()


def of(data: bytes) -> Fat:
    return Fat(lambda offset, size: data[offset : offset + size])


def test_prefix_and_modules_are_seen(tmp_path: Path) -> None:
    grub = read_grub(made(tmp_path, "-p", "/boot/grub2"))
    assert grub
    assert (grub.machine, grub.prefix, grub.config, grub.memdisk_config) == ("x86_64", "/boot/grub2", "", "")
    assert set(MODULES) <= set(grub.modules)
    assert "net" in grub.modules  # what others need comes too
    assert "iso9660" not in grub.modules


@pytest.mark.parametrize(
    ("at", "value"),
    [(40, (1 << 64) - 1), (40, 1 << 62), (58, 0xFFFF_0000), (58, 64 | 0xFFFF << 16)],
    ids=["far beyond", "beyond", "of no size", "too many"],
)
def test_a_module_with_an_impossible_table_of_sections_has_no_name(tmp_path: Path, at: int, value: int) -> None:
    """elf(5): e_shoff at 40, e_shentsize and e_shnum at 58."""
    data = bytearray(made(tmp_path, "-p", "/boot/grub2"))
    whole = read_grub(bytes(data))
    module = data.index(b"\x7fELF", read_program(bytes(data)).sections["mods"].offset)
    data[module + at : module + at + (8 if at == 40 else 4)] = value.to_bytes(8 if at == 40 else 4, "little")
    grub = read_grub(bytes(data))
    assert grub
    assert whole
    assert len(grub.modules) == len(whole.modules) - 1


def test_the_script_that_it_runs_first_is_seen(tmp_path: Path) -> None:
    script = "search --file --set=root /boot/0x5a4b\nset prefix=($root)/boot/grub2\n"
    (tmp_path / "early.cfg").write_text(script)
    grub = read_grub(made(tmp_path, "-p", "", "-c", tmp_path / "early.cfg"))
    assert grub
    assert (grub.prefix, grub.config) == ("", script)


def test_a_script_in_the_memdisk_is_seen(tmp_path: Path) -> None:
    (tmp_path / "early.cfg").write_text("normal (memdisk)/grub.cfg\n")
    (tmp_path / "disk").write_bytes(fat(tmp_path, {"grub.cfg": b"source $prefix/grub.cfg\n"}, kib=640, bits=12))
    grub = read_grub(made(tmp_path, "-p", "/grub", "-c", tmp_path / "early.cfg", "-m", tmp_path / "disk"))
    assert grub
    assert grub.memdisk_config == "source $prefix/grub.cfg\n"


@pytest.mark.parametrize("data", [b"", b"MZ", b"\x7fELF" * 100, SHIM.read_bytes()], ids=["empty", "MZ", "ELF", "shim"])
def test_another_program_is_no_grub(data: bytes) -> None:
    assert read_grub(data) is None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return made(tmp_path_factory.mktemp("whole"), "-p", "/boot/grub2")


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_damaged_grub_is_no_crash(whole: bytes, data: st.DataObject) -> None:
    area = whole.find(b"mods\0")
    places = st.one_of(st.integers(0, 1024), st.integers(area, area + 40), st.integers(0x1D000, 0x1D000 + 64))
    changed = bytearray(whole)
    for place in data.draw(st.lists(places, min_size=1, max_size=4)):
        changed[place] = data.draw(st.integers(0, 255))
    read_grub(bytes(changed[: data.draw(st.integers(0, len(changed)))]))


FILES = {
    "EFI/BOOT/BOOTX64.EFI": bytes(range(256)) * 50,
    "a file with a rather long name.txt": b"long\n",
    "grub.cfg": b"lower case\n",
    "empty": b"",
}


@pytest.mark.parametrize(("bits", "kib"), [(12, 640), (16, 8 << 10), (32, 40 << 10)])
def test_a_fat_file_system_of_each_kind(tmp_path: Path, bits: int, kib: int) -> None:
    found = of(fat(tmp_path, FILES, kib=kib, bits=bits))
    assert {name.lower() for name, _ in found.files()} == {name.lower() for name in FILES}
    assert {name: found.read(name) for name in FILES} == FILES
    assert found.read("efi/boot/bootx64.efi") == FILES["EFI/BOOT/BOOTX64.EFI"]
    assert found.read("efi/boot") is None
    assert found.read("grub.cfg/x") is None
    assert found.read("nowhere") is None


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_damaged_fat_file_system_is_an_error_and_no_crash(small_fat: bytes, data: st.DataObject) -> None:
    changed = bytearray(small_fat)
    for place in data.draw(st.lists(st.integers(0, 8191), min_size=1, max_size=8)):
        changed[place] = data.draw(st.integers(0, 255))
    try:
        found = of(bytes(changed))
        for name, _ in found.files():
            found.read(name)
    except (FatError, LimitError):
        pass


@pytest.fixture(scope="module")
def small_fat(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return fat(tmp_path_factory.mktemp("fat"), FILES, kib=64, bits=12)
