"""Take a program out of a root filesystem, with the dynamic loader and the libraries it is linked with.

Sources: ld.so(8) on where libraries are looked for; Debian's multiarch folders, which are those of its C library.
"""

from __future__ import annotations

import posixpath
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from pxe_pack.freeze.elf import Elf, ElfError
from pxe_pack.image.tree import Inode, RootTree, regular_file
from pxe_pack.tools import WorkError

_FOLDERS = ("lib64", "usr/lib64", "lib", "usr/lib")
MULTIARCH = re.compile(r".*/[\w-]+-linux-[\w-]+")  # x86_64-linux-gnu
_MOST_LIBRARIES = 64
_MAGIC = b"\x7fELF"


class ProgramError(Exception):
    """A program cannot be taken out; the text is a clause that says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A program with all that it needs to run."""

    path: str  # in the root filesystem, links resolved
    content: bytes
    loader: str  # the path of its dynamic loader, as it names it; empty if it is linked statically
    libraries: Mapping[str, bytes]  # by the names that it asks for, without the loader
    loader_content: bytes


def find_program(tree: RootTree, path: str) -> Program:
    """The program at `path`. Raises ProgramError, and WorkError or LimitError if the root filesystem is damaged."""
    real = tree.resolve(path)
    content = regular_file(tree, path)
    if content is None:
        raise ProgramError(f"there is no {path} in its root filesystem")
    elf = _elf(content, path)
    libraries: dict[str, bytes] = {}
    todo = [(name, elf) for name in elf.needed]
    folders = _folders(tree, elf.interpreter)
    while todo:
        name, by = todo.pop()
        if name in libraries or name == posixpath.basename(elf.interpreter):
            continue
        if len(libraries) == _MOST_LIBRARIES:
            raise ProgramError(f"{path} needs more than {_MOST_LIBRARIES} libraries")
        found = _library(tree, name, [*_own_folders(by), *folders])
        if found is None:
            raise ProgramError(f"{path} needs {name}, which is not in its root filesystem")
        libraries[name] = tree.cat(found.path)
        library = _elf(libraries[name], name)
        todo += [(other, library) for other in library.needed]
    loader = regular_file(tree, elf.interpreter) if elf.interpreter else b""
    if loader is None:
        raise ProgramError(f"{path} needs {elf.interpreter}, which is not in its root filesystem")
    return Program(path=real, content=content, loader=elf.interpreter, libraries=libraries, loader_content=loader)


def runs_with(program: Program, tree: RootTree) -> bool:
    """Whether `tree` has the very same loader and libraries, so that the program alone has to be added to it.

    Other builds of a library do not count: symbol versions say what is missing, but not what behaves otherwise.
    """
    folders = _folders(tree, program.loader)
    wanted = [(_library(tree, name, folders), content) for name, content in program.libraries.items()]
    if program.loader:
        folder, _, name = program.loader.rpartition("/")
        wanted.append((_library(tree, name, [folder]), program.loader_content))
    return all(found is not None and _has(tree, found, content) for found, content in wanted)


def _elf(content: bytes, name: str) -> Elf:
    if not content.startswith(_MAGIC):
        raise ProgramError(f"{name} is not an ELF file")
    try:
        return Elf(content, name=name)
    except ElfError as error:
        raise ProgramError(str(error)) from error


def _folders(tree: RootTree, interpreter: str) -> list[str]:
    """Where the loader looks by default: the folder that it is in, then its distribution's usual ones."""
    own = posixpath.dirname(tree.resolve(interpreter.lstrip("/")))
    inside = (inode.path for folder in _FOLDERS for inode in tree.inside(tree.resolve(folder)))
    return list(dict.fromkeys([own, *_FOLDERS, *filter(MULTIARCH.fullmatch, inside)]))


def _own_folders(elf: Elf) -> list[str]:
    """The folders that a file names; those relative to itself ($ORIGIN) are none of a system's programs."""
    return [folder.lstrip("/") for folder in elf.library_folders if "$" not in folder]


def _library(tree: RootTree, name: str, folders: list[str]) -> Inode | None:
    """The first file called `name` in `folders`, links followed."""
    for folder in folders:
        path = tree.resolve(f"{folder}/{name}")
        inode = tree.stat([path]).get(path)
        if inode and stat.S_ISREG(inode.mode):
            return inode
    return None


def _has(tree: RootTree, inode: Inode, content: bytes) -> bool:
    """Whether a file has this content."""
    if inode.size != str(len(content)):
        return False
    try:
        return tree.cat(inode.path) == content
    except WorkError:  # an initrd's files of more than 8 MiB are not read
        return False
