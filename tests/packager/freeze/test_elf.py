"""What the frozen agent's programs and libraries need, as its ELF reader says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pxe_pack import freeze
from pxe_pack.freeze.elf import Elf, ElfError, read_elf
from pxe_pack.tools import InputError

SYSTEM_ELFS = (Path("/bin/ls"), Path(shutil.which("openssl") or ""), *sorted(Path("/usr/lib").glob("*/libcrypto.so.*")))


def readelf_versions(path: Path) -> set[tuple[str, str]]:
    shown = subprocess.run(["readelf", "-W", "-V", path], capture_output=True, text=True, check=True).stdout
    library = ""
    found = set()
    for line in shown.partition("Version needs section")[2].splitlines():
        if file := re.search(r"File: (\S+)", line):
            library = file[1]
        if version := re.search(r"Name: (\S+)", line):
            found.add((library, version[1]))
    return found


def test_reads_the_same_from_an_elf_file_as_readelf(agent: freeze.FrozenAgent) -> None:
    files = [path for path in agent.path.rglob("*") if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"]
    assert len(files) > 10
    for path in [*files, *SYSTEM_ELFS]:
        elf = read_elf(path)
        assert elf is not None
        assert {(need.library, need.version) for need in elf.version_needs} == readelf_versions(path)


def test_floor_is_the_newest_glibc_that_any_file_asks_for(agent: freeze.FrozenAgent) -> None:
    versions = [
        version
        for path in agent.path.rglob("*")
        if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"
        for _, name in readelf_versions(path)
        if (version := freeze.parse_glibc(name)) and name.startswith("GLIBC_")
    ]
    assert freeze.glibc_floor(agent.path) == agent.glibc == max(versions)


def test_needs_no_newer_glibc_than_rhel_9_has(agent: freeze.FrozenAgent) -> None:
    assert agent.glibc <= freeze.GlibcVersion(2, 34)


def test_has_no_search_path_of_where_it_was_frozen(agent: freeze.FrozenAgent) -> None:
    elfs = [path for path in agent.path.rglob("*") if path.is_file() and read_elf(path)]
    shown = subprocess.run(["readelf", "-W", "-d", *elfs], capture_output=True, text=True, check=True).stdout
    paths = re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", shown)
    assert [path for path in paths if not path.startswith("$ORIGIN")] == []


def test_leaves_systemd_and_c_libraries_to_the_node(agent: freeze.FrozenAgent) -> None:
    names = {path.name.partition(".so")[0] for path in agent.path.rglob("*.so*")}
    assert names.isdisjoint({"libc", "libm", "libpthread", "libsystemd", "libgcrypt", "ld-linux-x86-64"})


def test_a_file_cut_short_is_no_elf_file(tmp_path: Path) -> None:
    data = Path("/bin/ls").read_bytes()
    for length in (5, 63, 100, len(data) // 50):
        with pytest.raises(ElfError):
            _ = Elf(data[:length], name="cut").version_needs
    (tmp_path / "text").write_text("#!/bin/sh\n")
    assert read_elf(tmp_path / "text") is None


def test_files_of_two_machines_are_refused(tmp_path: Path) -> None:
    shutil.copy("/bin/ls", tmp_path / "a")
    assert freeze.machine_of(tmp_path) == os.uname().machine
    data = bytearray((tmp_path / "a").read_bytes())
    data[18] = 243  # RISC-V
    (tmp_path / "b").write_bytes(data)
    with pytest.raises(InputError, match="agent-machines-mixed"):
        freeze.machine_of(tmp_path)


def test_a_folder_without_programs_is_no_agent(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="agent-no-programs"):
        freeze.machine_of(tmp_path)


def test_an_image_that_is_too_old_or_of_another_machine_does_not_fit(agent: freeze.FrozenAgent) -> None:
    older = freeze.GlibcVersion(2, 17)
    problem = freeze.image_fits(agent, glibc=older, machine=agent.machine)
    assert problem is not None
    assert "2.17" in problem.message
    assert str(agent.glibc) in problem.message
    problem = freeze.image_fits(agent, glibc=agent.glibc, machine="s390x")
    assert problem is not None
    assert "s390x" in problem.message
    assert agent.machine in problem.message
    assert freeze.image_fits(agent, glibc=None, machine=agent.machine) is not None
    assert freeze.image_fits(agent, glibc=agent.glibc, machine=agent.machine) is None
    assert freeze.image_fits(agent, glibc=freeze.GlibcVersion(3, 0), machine=agent.machine) is None


@pytest.mark.parametrize(
    ("text", "version"),
    [("2.36", (2, 36)), ("2.36-9+deb12u10", (2, 36)), ("GLIBC_2.2.5", (2, 2)), ("GLIBC_PRIVATE", None), ("", None)],
)
def test_versions_are_read_as_packages_and_symbols_write_them(text: str, version: tuple[int, int] | None) -> None:
    assert freeze.parse_glibc(text) == version
