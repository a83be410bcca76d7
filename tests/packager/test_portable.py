"""The edits to ELF files, tried on programs compiled here and run afterwards."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pxe_pack.freeze import GlibcVersion
from pxe_pack.freeze.elf import Elf, read_elf
from pxe_pack.freeze.glibc import elf_floor
from pxe_pack.freeze.portable import elf_hash, make_portable

HYPOT = """
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) { printf("%g %g\\n", hypot(atof(argv[1]), atof(argv[2])), cos(0.0 * argc)); return 0; }
"""
EXPAT = """
#include <stdio.h>
void XML_ParserCreate(void) { puts("parsing"); }
int XML_ExpatVersion(void) { return 7; }
"""
USER = """
#include <stdio.h>
void XML_ParserCreate(void);
int XML_ExpatVersion(void);
int (*version)(void) = XML_ExpatVersion;
int main(int argc, char **argv) { if (argc > 1) XML_ParserCreate(); puts("started"); return 0; }
"""


def compiled(source: str, out: Path, *options: str) -> Path:
    file = out.parent.parent / f"{out.name}.c"
    file.write_text(source)
    subprocess.run(["gcc", "-O1", "-fno-builtin", str(file), "-o", str(out), *options], check=True)
    return out


def elf_of(path: Path) -> Elf:
    elf = read_elf(path)
    assert elf is not None
    return elf


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "work").mkdir()
    return tmp_path / "tree"


def portable(tree: Path) -> None:
    make_portable(tree, work=tree.parent / "work")


def test_a_search_path_of_this_machine_goes_and_the_program_still_runs(tree: Path) -> None:
    for tags in ("--enable-new-dtags", "--disable-new-dtags"):
        program = compiled(HYPOT, tree / "program", "-lm", f"-Wl,-rpath,/home/someone/lib,{tags}")
        assert elf_of(program).search_path == "/home/someone/lib"
        portable(tree)
        assert elf_of(program).search_path == ""
        assert b"/home/someone" not in program.read_bytes()
        assert subprocess.run([program, "3", "4"], capture_output=True, check=True).stdout == b"5 1\n"


def test_a_search_path_relative_to_the_file_stays(tree: Path) -> None:
    program = compiled(HYPOT, tree / "program", "-lm", "-Wl,-rpath,$ORIGIN/lib")
    portable(tree)
    assert elf_of(program).search_path == "$ORIGIN/lib"


@pytest.mark.skipif(os.uname().machine not in {"x86_64", "aarch64"}, reason="of two machines the base version is known")
def test_hypot_is_asked_for_in_its_oldest_version(tree: Path) -> None:
    program = compiled(HYPOT, tree / "program", "-lm")
    before = {need.version for need in elf_of(program).version_needs if need.library == "libm.so.6"}
    assert "GLIBC_2.35" in before
    portable(tree)
    after = {need.version for need in elf_of(program).version_needs if need.library == "libm.so.6"}
    assert after == before - {"GLIBC_2.35"}
    assert (elf_floor(elf_of(program)) or GlibcVersion(2, 0)) < (2, 35)
    shown = subprocess.run(["readelf", "-V", program], capture_output=True, text=True, check=True)
    assert "2.35" not in shown.stdout
    assert "warning" not in shown.stderr.lower()
    assert subprocess.run([program, "3", "4"], capture_output=True, check=True).stdout == b"5 1\n"
    bind_now = subprocess.run([program, "6", "8"], capture_output=True, check=True, env={"LD_BIND_NOW": "1"})
    assert bind_now.stdout == b"10 1\n"


def test_another_function_of_the_same_version_keeps_it(tree: Path) -> None:
    source = '#include <unistd.h>\n#include <stdio.h>\nint main(void) { return dprintf(1, "%d\\n", 7) != 2; }\n'
    program = compiled(source, tree / "program")
    before = program.read_bytes()
    portable(tree)
    assert program.read_bytes() == before


def test_expat_is_replaced_by_one_that_only_loads(tree: Path) -> None:
    compiled(EXPAT, tree / "libexpat.so.1", "-shared", "-fPIC", "-Wl,-soname,libexpat.so.1")
    program = compiled(USER, tree / "user.so", str(tree / "libexpat.so.1"), "-Wl,-z,now")
    env = {"LD_LIBRARY_PATH": str(tree)}
    assert subprocess.run([program, "x"], env=env, capture_output=True, check=True).stdout == b"parsing\nstarted\n"
    portable(tree)
    assert subprocess.run([program], env=env, capture_output=True, check=True).stdout == b"started\n"
    assert elf_floor(elf_of(tree / "libexpat.so.1")) is None
    assert subprocess.run([program, "x"], env=env, capture_output=True, check=False).returncode < 0


def test_edits_are_done_once(tree: Path) -> None:
    program = compiled(HYPOT, tree / "program", "-lm", "-Wl,-rpath,/home/someone/lib")
    portable(tree)
    once = program.read_bytes()
    portable(tree)
    assert program.read_bytes() == once


@pytest.mark.parametrize(("name", "value"), [("GLIBC_2.2.5", 0x09691A75), ("GLIBC_2.17", 0x06969197)])
def test_version_hashes_are_those_of_the_linker(name: str, value: int) -> None:
    assert elf_hash(name) == value
