"""Edits to the collected ELF files that let the agent run on more nodes than the machine that froze it.

1. A library search path of the freezing machine (pyenv writes one into libpython) is taken out: it would be looked
   through on the node at each start, and whoever can write there could replace what the agent loads.
2. Some functions of libm got a second version that differs only in leaving out the SVID error wrapper (`hypot` in glibc
   2.35, NEWS: "no longer call the matherr handler"). The first version is still in every glibc, so files that need the
   newer one for nothing but these are made to ask for the older: the floor falls from 2.35 to 2.34, RHEL 9's.
3. Debian's libpython is linked with the system's libexpat, which needs glibc 2.36. The agent reads no XML (pyexpat is
   left out, and the recipe refuses an agent that imports it), so a library of the same name whose functions abort
   takes its place.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from pxe_pack import tools
from pxe_pack.freeze.elf import DT_RPATH, DT_RUNPATH, Elf, VersionNeed, read_elf

# The version that libm's oldest functions carry is the one of the glibc that first ran on the machine.
_BASE_VERSIONS = {"x86_64": "GLIBC_2.2.5", "aarch64": "GLIBC_2.17"}
_LIBM = "libm.so.6"
_SAME_IN_OLDER = frozenset(
    {"exp", "exp2", "log", "log2", "pow", "expf", "exp2f", "logf", "log2f", "powf", "hypot", "hypotf", "fmod", "fmodf"}
)
_EXPAT = "libexpat.so.1"


def make_portable(tree: Path, *, work: Path) -> None:
    """Make the three edits to the files below `tree`; `work` is a folder for what is compiled on the way.

    Raises ElfError, WorkError.
    """
    _replace_expat(tree, work=work)
    for path in sorted(tree.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        elf = read_elf(path)
        if elf is None:
            continue
        edited = bytearray(elf.data)
        _drop_search_path(elf, edited)
        _lower_libm(elf, edited)
        if edited != elf.data:
            path.write_bytes(edited)


def _drop_search_path(elf: Elf, edited: bytearray) -> None:
    """Take the RPATH and RUNPATH entries out, unless they lead to the file's own folder, and blank their text."""
    doomed = [
        entry
        for entry in elf.dynamic
        if entry.tag in (DT_RPATH, DT_RUNPATH) and not elf.string(entry.value).startswith("$ORIGIN")
    ]
    if not doomed:
        return
    kept = [entry for entry in elf.dynamic if entry not in doomed]
    start = elf.dynamic[0].offset
    for i in range(len(elf.dynamic)):
        tag, value = (kept[i].tag, kept[i].value) if i < len(kept) else (0, 0)
        struct.pack_into(elf.order + "QQ", edited, start + 16 * i, tag, value)
    for entry in doomed:
        text = elf.string(entry.value).encode()
        place = elf.string_table + entry.value
        edited[place : place + len(text)] = b"\0" * len(text)


def _lower_libm(elf: Elf, edited: bytearray) -> None:
    """Ask for the oldest version of libm's functions where it is the same function."""
    base = _BASE_VERSIONS.get(elf.machine)
    place = elf.data.find(f"\0{base}\0".encode(), elf.string_table)
    if base is None or place < 0:  # the name has to be in the file already; libpython and its like all have it
        return
    for need in _lowerable(elf, base=base):
        # Elf64_Vernaux: hash, flags, index, name, step. The index stays, so every symbol keeps pointing here.
        struct.pack_into(elf.order + "I", edited, need.offset, elf_hash(base))
        struct.pack_into(elf.order + "I", edited, need.offset + 8, place + 1 - elf.string_table)


def _lowerable(elf: Elf, *, base: str) -> Iterator[VersionNeed]:
    candidates = [need for need in elf.version_needs if need.library == _LIBM and need.version != base]
    if not candidates:
        return
    symbols = elf.undefined_symbols()
    for need in candidates:
        names = {symbol.name for symbol in symbols if symbol.version == need.index}
        if names and names <= _SAME_IN_OLDER:
            yield need


def elf_hash(name: str) -> int:
    """The System V hash of a symbol version's name (gABI, "Hash Table Section")."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high & 0xFFFFFFFF
    return value


def _replace_expat(tree: Path, *, work: Path) -> None:
    expats = sorted(tree.rglob(_EXPAT))
    users = [elf for path in sorted(tree.rglob("*.so*")) if path.is_file() and (elf := read_elf(path))]
    functions = sorted(
        {
            symbol.name
            for elf in users
            if _EXPAT in elf.needed
            for symbol in elf.undefined_symbols()
            if symbol.name.startswith("XML_")
        }
    )
    for expat in expats:
        source = work / "expat.c"
        source.write_text("".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in functions))
        arguments = ("-shared", "-fPIC", "-O1", "-nostdlib", "-s", f"-Wl,-soname,{_EXPAT}", "-Wl,--build-id=none")
        tools.run("gcc", *arguments, "-o", work / _EXPAT, source)
        expat.write_bytes((work / _EXPAT).read_bytes())
