"""Where HTTP serves the files of a layout.

Image Customizer's documentation of PXE has the ISO and `other-user-artifacts/` side by side under the server's root.
That may be any folder: the one in which `root=live:` finds the ISO.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from pxe_pack.layout.manifest import FOLDER, Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Urls:
    """The URLs that a layout is served at."""

    boot_url: str | None  # of the ISO; None for a full-os image
    artifact_url: str | None  # of the folder with the artifacts

    def of(self, path: str, kind: Kind) -> str | None:
        """The URL of the file at `path`; None if HTTP does not serve it, or if no URL is known."""
        if kind is Kind.BOOT:
            return None
        if kind is Kind.ISO:
            return self.boot_url
        if self.artifact_url and path.startswith(f"{FOLDER}/"):
            return file_url(self.artifact_url, path.removeprefix(f"{FOLDER}/"))
        return file_url(self.root, path) if self.root else None

    @property
    def root(self) -> str | None:
        """The folder whose URL is the layout's: that of the ISO, else the one that FOLDER would be in."""
        if self.boot_url and not is_nfs(self.boot_url):
            return self.boot_url.rpartition("/")[0]
        if not self.artifact_url:
            return None
        folder = self.artifact_url.rstrip("/")
        return folder.removesuffix(f"/{FOLDER}") if folder.endswith(f"/{FOLDER}") else server(folder)


def same_urls(kinds: Mapping[str, Kind], urls: Urls) -> Iterator[tuple[str, str, str]]:
    """Each file that would hide another, or be hidden by it: its path, the other's, and the URL of both.

    `kinds` are those of all files, by path. iPXE and UEFI HTTP boot find the boot files at the server's top.
    """
    known = urls.boot_url or urls.artifact_url
    seen: dict[str, str] = {}
    for path, kind in sorted(kinds.items(), key=lambda item: (item[1] is not Kind.BOOT, item[1] is Kind.ADDITIONAL)):
        url = urls.of(path, kind) or (file_url(server(known), path) if known and kind is Kind.BOOT else None)
        if url and (first := seen.setdefault(url, path)) != path:
            yield path, first, url


def default_artifact_url(boot_url: str) -> str:
    """The URL of the artifacts' folder beside the ISO; empty if nodes cannot fetch them from there."""
    if is_nfs(boot_url):
        return ""
    return file_url(boot_url.rpartition("/")[0], f"{FOLDER}/")


def is_nfs(url: str) -> bool:
    """Whether `url` is on a share that dracut mounts (dracut.cmdline(7)): HTTP does not serve what lies beside it."""
    return url.startswith("nfs:")


def file_url(base: str, path: str) -> str:
    """The URL of the file at `path` below the folder `base`."""
    return f"{base.rstrip('/')}/{quote(path)}"


def file_name(url: str) -> str:
    """The name of the file at `url`: the last part of its path, decoded; that of the ISO in the layout."""
    return unquote(urlsplit(url).path.rpartition("/")[2])


def server(url: str) -> str:
    """The root URL of the server of `url`, without a trailing slash."""
    return "{0.scheme}://{0.netloc}".format(urlsplit(url))
