"""Where the collector and the page listen: two commands that read ADDRESS:PORT alike."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fakes.collector import collector
from pxe_pack import cli
from pxe_pack.collector import command

FORM = "is not ADDRESS:PORT, as in 127.0.0.1:8787 or [2001:db8::1]:8787"
WRONG = {
    "127.0.0.1": FORM,
    ":8787": FORM,
    "::1:8787": FORM,
    "[::1:8787": FORM,
    "[::1]8787": FORM,
    "127.0.0.1:": FORM,
    "127.0.0.1:65536": FORM,
    "127.0.0.1:+80": FORM,
    "127.0.0.1: 80": FORM,
    "127.0.0.1:٨٠": FORM,
    "[127.0.0.1]:8787": "127.0.0.1 is not an IPv6 address",
    "[fe80::1]:8787": "is link-local, and URLs cannot name it: use another address",
    "[fe80::1%lo]:8787": "is link-local, and URLs cannot name it: use another address",
    "nowhere.invalid:8787": "nowhere.invalid has no address: ",
}


@pytest.mark.parametrize("written", WRONG)
def test_what_is_no_address_with_a_port_is_said_alike(
    written: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for flag in ("--page-listen", "--listen"):
        monkeypatch.setattr(sys, "argv", ["pxe-pack-collector", "--database", "sqlite:///x", "--listen", written])
        with pytest.raises(SystemExit) as ended:
            cli.main(["serve", "pxe", flag, written]) if flag == "--page-listen" else command.main()
        assert ended.value.code == 2
        said.append(capsys.readouterr().err.partition(f"argument {flag}: ")[2])
    assert said[0] == said[1]
    assert WRONG[written] in said[0]


@pytest.mark.parametrize(("listen", "host"), [("localhost:0", "127.0.0.1"), ("[::1]:0", "[::1]")])
def test_names_and_addresses_in_brackets_are_listened_at(listen: str, host: str, tmp_path: Path) -> None:
    with collector(tmp_path / "c", listen=listen) as collecting:
        assert collecting.url.startswith(f"http://{host}:")
        assert collecting.nodes() == {}


def test_page_has_a_port_that_is_known_beforehand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["serve", "pxe", "--page-listen", "127.0.0.1:0"])
    assert "the port has to be a certain one" in capsys.readouterr().err
