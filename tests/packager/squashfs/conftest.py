"""Images shared by the tests: built once per session, never written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager.squashfs.images import KINDS


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes ten seconds or more (-m 'not slow' leaves them out)")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("squashfs-images")


@pytest.fixture(params=KINDS)
def image(request: pytest.FixtureRequest, images: Path) -> Path:
    """One image of each kind."""
    return _made(images, request.param)


@pytest.fixture(params=["gzip", "bare", "tar2sqfs-zstd"])
def an_image(request: pytest.FixtureRequest, images: Path) -> Path:
    """Images of three kinds that have as little in common as possible."""
    return _made(images, request.param)


@pytest.fixture
def gzip_image(images: Path) -> Path:
    return _made(images, "gzip")


def _made(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.squashfs"
    if not path.exists():
        KINDS[kind](path).chmod(0o444)
    return path
