from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from fakes.certs import Authority
from fakes.node import FakeNode


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    """A node with nothing on it: no configuration, an empty kernel command line."""
    node = FakeNode(folder=tmp_path)
    node.boot_with("quiet")
    return node


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The certificate authority of a site."""
    return Authority(tmp_path_factory.mktemp("ca") / "site")


@pytest.fixture(scope="module")
def localhost(authority: Authority) -> ssl.SSLContext:
    """TLS of a server at `localhost`, with a certificate of the site's authority."""
    issued = authority.issue("localhost", alternative="DNS:localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    return context
