"""Compute what a graft changes before anything is written: the directories to rewrite, and what is new in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pxe_fetch.contract.problem import Problem
from pxe_pack.squashfs import paths
from pxe_pack.squashfs.addition import Addition, NewDirectory, NewFile, NewSymlink
from pxe_pack.squashfs.directory import Entry
from pxe_pack.squashfs.errors import SquashfsError
from pxe_pack.squashfs.image import Image
from pxe_pack.squashfs.inodes import Directory, Inode, Symlink


@dataclass(kw_only=True, eq=False)
class Leaf:
    """A new file or symlink."""

    addition: NewFile | NewSymlink
    number: int = 0  # inode number; 0 until assigned
    instead_of: int | None = None  # reference of the inode it replaces and whose number it takes


@dataclass(kw_only=True, eq=False)
class Branch:
    """A directory with changes in it or below it, or one that was only traversed."""

    inode: Directory | None  # the image's own; None if it is new
    addition: NewDirectory | None = None  # set if it is new
    number: int = 0  # inode number; 0 until assigned
    parent: Branch | None = None  # None for the root
    name: bytes = b""
    # Its changes by name. None: the name is removed. An Entry: the same inode as before, at another place.
    names: dict[bytes, Branch | Leaf | Entry | None] = field(default_factory=dict)

    def lost(self, name: bytes) -> bool:
        """Whether `name` is removed."""
        return name in self.names and self.names[name] is None

    @property
    def changed(self) -> bool:
        """Whether its listing has to be rewritten."""
        return self.addition is not None or any(
            not isinstance(what, Branch) or what.changed for what in self.names.values()
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Relink:
    """An inode that lost some of its names, and the places of the remaining ones."""

    inode: Inode
    places: tuple[tuple[Branch, Entry], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """Everything a graft changes in an image."""

    root: Branch
    relinks: tuple[Relink, ...]
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    removed: tuple[str, ...]

    def branches(self) -> list[Branch]:
        """The directories to rewrite, parents first, in the order of their paths."""
        found, pending = [], [self.root]
        while pending:
            branch = pending.pop()
            found.append(branch)
            inner = [(name, what) for name, what in branch.names.items() if isinstance(what, Branch) and what.changed]
            pending += [what for _, what in sorted(inner, key=lambda pair: pair[0], reverse=True)]
        return found

    def leaves(self) -> Iterator[Leaf]:
        """The new files and symlinks, ordered by directory, then by name."""
        for branch in self.branches():
            for _, what in sorted(branch.names.items(), key=lambda pair: pair[0]):
                if isinstance(what, Leaf):
                    yield what


def merge(image: Image, *, additions: Sequence[Addition], removals: Iterable[str]) -> Merge:
    """The changes that remove `removals` from `image` and then add `additions`.

    A removal includes everything below the path; missing paths are ignored. Parents may be symlinks in the image.
    Raises SquashfsError with all problems at once: an impossible addition, a missing parent, a file in place of a
    directory or the reverse.
    """
    problems = [problem for addition in additions for problem in addition.problems()]
    if problems:
        raise SquashfsError(*problems)
    work = _Merging(image)
    for path in removals:
        work.remove(path)
    for addition in sorted(additions, key=lambda one: paths.parts(paths.encode(one.path))):
        work.add(addition)
    if work.problems:
        raise SquashfsError(*work.problems)
    return Merge(
        root=work.root,
        relinks=work.relinks(),
        added=tuple(work.added),
        replaced=tuple(work.replaced),
        removed=tuple(work.removed),
    )


class _Merging:
    def __init__(self, image: Image) -> None:
        self.image = image
        self.root = Branch(inode=image.root, number=image.root.number)
        self.problems: list[Problem] = []
        self.added: list[str] = []
        self.replaced: list[str] = []
        self.removed: list[str] = []
        self._gone: dict[int, Inode] = {}  # by reference: inodes that lost a name and may have others

    def _step(self, branch: Branch, name: bytes) -> Branch | bytes | None:
        """The directory `name` in `branch`, or a symlink's target; None for anything else."""
        if name in branch.names:
            match branch.names[name]:
                case Branch() as inner:
                    return inner
                case Leaf(addition=NewSymlink(target=target)):
                    return paths.encode(target)
                case _:
                    return None
        inode = self._inode(branch, name)
        if isinstance(inode, Directory):
            inner = Branch(inode=inode, number=inode.number, parent=branch, name=name)
            branch.names[name] = inner
            return inner
        return inode.target if isinstance(inode, Symlink) else None

    def _inode(self, branch: Branch, name: bytes) -> Inode | None:
        entry = self.image.lookup(branch.inode, name) if branch.inode else None
        return self.image.inode(entry.reference) if entry else None

    def _parent(self, path: str) -> tuple[Branch | None, bytes]:
        *above, name = paths.parts(paths.encode(path))
        return paths.resolve(b"/".join(above), self.root, self._step), name

    def remove(self, path: str) -> None:
        if not paths.parts(paths.encode(path)) or ".." in path.split("/"):
            self._refuse(path, "cannot be removed: it is the root, or contains `..`")
            return
        branch, name = self._parent(path)
        if branch is None or branch.lost(name):
            return
        inode = self._inode(branch, name)
        if inode is None:
            return
        branch.names[name] = None
        self.removed.append(path)
        self._lose(inode)
        if isinstance(inode, Directory):
            for _, below in self.image.walk(inode):
                self._lose(below)

    def _lose(self, inode: Inode) -> None:
        if inode.links > 1 and not isinstance(inode, Directory):
            self._gone[inode.reference] = inode

    def add(self, addition: Addition) -> None:
        branch, name = self._parent(addition.path)
        if branch is None:
            self._refuse(addition.path, "cannot be added: its parent directory does not exist")
            return
        there = branch.names.get(name)
        if isinstance(there, Leaf) or (isinstance(there, Branch) and there.addition is not None):
            self._refuse(addition.path, "is added twice")
        elif isinstance(addition, NewDirectory):
            self._add_directory(branch, name, addition, gone=branch.lost(name))
        elif isinstance(addition, NewFile | NewSymlink):
            self._add_leaf(branch, name, addition, gone=branch.lost(name))

    def _add_directory(self, branch: Branch, name: bytes, addition: NewDirectory, *, gone: bool) -> None:
        if not gone and self._inode(branch, name) is not None:
            # Symlinks count: an image whose /lib is a link to usr/lib has a directory at /lib.
            if paths.resolve(paths.encode(addition.path), self.root, self._step) is None:
                self._refuse(addition.path, "cannot be a directory: the image has something else there")
            return
        branch.names[name] = Branch(inode=None, addition=addition, parent=branch, name=name)
        self.added.append(addition.path)

    def _add_leaf(self, branch: Branch, name: bytes, addition: NewFile | NewSymlink, *, gone: bool) -> None:
        inode = None if gone else self._inode(branch, name)
        if isinstance(inode, Directory):
            self._refuse(addition.path, "cannot be added: the image has a directory there")
            return
        leaf = Leaf(addition=addition)
        if inode is None:
            self.added.append(addition.path)
        else:
            self.replaced.append(addition.path)
            self._lose(inode)
            if inode.links == 1:
                leaf.number, leaf.instead_of = inode.number, inode.reference
        branch.names[name] = leaf

    def _refuse(self, path: str, why: str) -> None:
        self.problems.append(Problem(reference="graft-conflict", message=f"{path} {why}"))

    def relinks(self) -> tuple[Relink, ...]:
        """The inodes that lost some but not all of their names. Finding the others means walking the whole tree."""
        if not self._gone:
            return ()
        places: dict[int, list[tuple[Branch, Entry]]] = {reference: [] for reference in self._gone}
        for path, inode in self.image.walk():
            if inode.reference not in places:
                continue
            branch, name = self._original_parent(path)
            if branch is not None and name not in branch.names:
                entry = Entry(name, inode.kind, inode.reference, inode.number)
                places[inode.reference].append((branch, entry))
                branch.names[name] = entry  # so that this listing is rewritten too
        return tuple(
            Relink(inode=inode, places=tuple(places[reference]))
            for reference, inode in self._gone.items()
            if places[reference]
        )

    def _original_parent(self, path: str) -> tuple[Branch | None, bytes]:
        """The parent directory of `path` in the original image; None if it is removed, even if it is then replaced."""
        *above, name = paths.parts(paths.encode(path))
        branch = self.root
        for part in above:
            inner = self._step(branch, part)
            if not isinstance(inner, Branch) or inner.inode is None:
                return None, name
            branch = inner
        return branch, name
