"""What a graft changes, found out before anything is written: directories to be listed anew, what is new in them."""

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
    number: int = 0  # its inode's; 0 until it is known
    instead_of: int | None = None  # reference of the inode whose number it takes


@dataclass(kw_only=True, eq=False)
class Branch:
    """A directory with changes in it or below it, or one that was only looked into on the way."""

    inode: Directory | None  # as the image has it
    addition: NewDirectory | None = None  # when it is new
    number: int = 0  # its inode's; 0 until it is known
    parent: Branch | None = None  # None for the root
    name: bytes = b""
    # What differs in it. None: the name goes. An Entry: the same inode as before, at another place.
    names: dict[bytes, Branch | Leaf | Entry | None] = field(default_factory=dict)

    def lost(self, name: bytes) -> bool:
        """Whether `name` goes."""
        return name in self.names and self.names[name] is None

    @property
    def changed(self) -> bool:
        """Whether it has to be listed anew."""
        return self.addition is not None or any(
            not isinstance(what, Branch) or what.changed for what in self.names.values()
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Relink:
    """An inode that lost some of its names, and the places of those that are left to it."""

    inode: Inode
    places: tuple[tuple[Branch, Entry], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """All that a graft changes in an image."""

    root: Branch
    relinks: tuple[Relink, ...]
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    removed: tuple[str, ...]

    def branches(self) -> list[Branch]:
        """The directories to be listed anew, each before those in it, in the order of their paths."""
        found, ahead = [], [self.root]
        while ahead:
            branch = ahead.pop()
            found.append(branch)
            inner = [(name, what) for name, what in branch.names.items() if isinstance(what, Branch) and what.changed]
            ahead += [what for _, what in sorted(inner, key=lambda pair: pair[0], reverse=True)]
        return found

    def leaves(self) -> Iterator[Leaf]:
        """The new files and symlinks, in the order of their directories, then of their names."""
        for branch in self.branches():
            for _, what in sorted(branch.names.items(), key=lambda pair: pair[0]):
                if isinstance(what, Leaf):
                    yield what


def merge(image: Image, *, additions: Sequence[Addition], removals: Iterable[str]) -> Merge:
    """The changes that make `image` have `additions` and no longer have `removals`, which go first.

    A removal takes all that is below it, and none is missed that isn't there. Parents may be symlinks in the image.
    Raises SquashfsError with every problem: an impossible addition, a parent that isn't there, a file where a
    directory is or the other way round.
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
        self._gone: dict[int, Inode] = {}  # by reference: what lost names and may have others

    def _step(self, branch: Branch, name: bytes) -> Branch | bytes | None:
        """The directory `name` in `branch`, a symlink's target, None for anything else."""
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
            self._refuse(path, "can't be removed: it is the root, or leads upwards")
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
            self._refuse(addition.path, "can't be added: the directory it would be in is not there")
            return
        there = branch.names.get(name)
        if isinstance(there, Leaf) or (isinstance(there, Branch) and there.addition is not None):
            self._refuse(addition.path, "is to be added twice")
        elif isinstance(addition, NewDirectory):
            self._add_directory(branch, name, addition, gone=branch.lost(name))
        elif isinstance(addition, NewFile | NewSymlink):
            self._add_leaf(branch, name, addition, gone=branch.lost(name))

    def _add_directory(self, branch: Branch, name: bytes, addition: NewDirectory, *, gone: bool) -> None:
        if not gone and self._inode(branch, name) is not None:
            # Through symlinks, too: an image whose /lib leads to usr/lib has a directory there.
            if paths.resolve(paths.encode(addition.path), self.root, self._step) is None:
                self._refuse(addition.path, "can't be a directory: the image has something else there")
            return
        branch.names[name] = Branch(inode=None, addition=addition, parent=branch, name=name)
        self.added.append(addition.path)

    def _add_leaf(self, branch: Branch, name: bytes, addition: NewFile | NewSymlink, *, gone: bool) -> None:
        inode = None if gone else self._inode(branch, name)
        if isinstance(inode, Directory):
            self._refuse(addition.path, "can't be added: the image has a directory there")
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
        """What lost some of its names and not all. Its other names are nowhere listed: the whole tree is searched."""
        if not self._gone:
            return ()
        places: dict[int, list[tuple[Branch, Entry]]] = {reference: [] for reference in self._gone}
        for path, inode in self.image.walk():
            if inode.reference not in places:
                continue
            branch, name = self._former_parent(path)
            if branch is not None and name not in branch.names:
                entry = Entry(name, inode.kind, inode.reference, inode.number)
                places[inode.reference].append((branch, entry))
                branch.names[name] = entry  # it will be listed anew
        return tuple(
            Relink(inode=inode, places=tuple(places[reference]))
            for reference, inode in self._gone.items()
            if places[reference]
        )

    def _former_parent(self, path: str) -> tuple[Branch | None, bytes]:
        """The directory that `path`, of the image as it was, is in; None when that goes, whatever takes its place."""
        *above, name = paths.parts(paths.encode(path))
        branch = self.root
        for part in above:
            inner = self._step(branch, part)
            if not isinstance(inner, Branch) or inner.inode is None:
                return None, name
            branch = inner
        return branch, name
