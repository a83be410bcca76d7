"""What was built before, kept by the content of what it was built from."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

_HERE = Path(__file__).resolve().parent


class Cache:
    """A folder of finished files, each named by a key; safe for builders that run at the same time."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder if folder is not None else self.default_folder()

    @staticmethod
    def default_folder() -> Path:
        """${XDG_CACHE_HOME:-~/.cache}/pxe-pack/liveos (XDG Base Directory Specification)."""
        base = os.environ.get("XDG_CACHE_HOME", "")
        return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "pxe-pack" / "liveos"

    def get(self, name: str, make: Callable[[Path], None]) -> Path:
        """The finished file or folder of this name; if it is not there yet, `make` makes it at the path it is given.

        Other processes that want the same one wait for it (flock(2)). Files are read-only: they are shared.
        """
        final = self.folder / name
        if final.exists():
            return final
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not final.exists():
                with beside(final) as partial:
                    make(partial)
                    for file in files_in(partial):
                        file.chmod(0o444)
        return final

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder to work in, on the cache's file system, gone afterwards."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".work-", dir=self.folder) as name:
            # mmdebstrap's unshare mode works as another user, who has to get in
            Path(name).chmod(0o755)
            yield Path(name)


@contextlib.contextmanager
def beside(final: Path) -> Iterator[Path]:
    """A path to make a file or folder at, renamed to `final` when the block ends well and removed when it does not."""
    final.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=final.suffix, dir=final.parent)
    os.close(descriptor)
    partial = Path(name)
    partial.unlink()  # some programs refuse to write to a file that is there
    try:
        yield partial
        partial.replace(final)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)


def content_key(*parts: str | Path) -> str:
    """Sixteen hexadecimal digits that stand for all the parts: strings as they are, paths (below here) by content."""
    digest = hashlib.sha256()
    for part in parts:
        files = [part] if isinstance(part, str) else sorted(files_in(part))
        for file in files:
            data = file.encode() if isinstance(file, str) else file.read_bytes()
            label = "" if isinstance(file, str) else str(file.relative_to(_HERE))
            digest.update(f"{label}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:16]


def files_in(path: Path) -> list[Path]:
    """The files in a folder, at any depth; of a file, itself."""
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
