"""`pack: {report: auto}`: where nodes report to, and the token in the image that they do it with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from packing.site import ARTIFACT, Site, files_of
from pxe_pack import cli

Packs = Callable[..., str]
Refused = Callable[..., str]
PATH = "etc/pxe-fetch/credentials/pxe-fetch.report"
URL = "http://10.0.0.1:8080/report"  # of the server in packing.site.BOOT_URL


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[[Path], dict[str, object]]:
    """Gives what `show` says of an image or a layout."""

    def run(path: Path) -> dict[str, object]:
        assert cli.main(["show", str(path), "--json"]) == 0
        (result,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"result"' in line]
        assert isinstance(result, dict)
        return result

    return run


def token_of(site: Site) -> str:
    return site.config.with_name("fetch.report-token").read_text().strip()


@pytest.mark.parametrize("inject", ["updates", "initrd", "rootfs"])
def test_nodes_get_the_url_of_the_layouts_server_and_a_token_that_only_root_can_read(
    site: Site, packs: Packs, inject: str, shown: Callable[[Path], dict[str, object]]
) -> None:
    site.pack = {"report": "auto"}
    said = packs("--inject", inject)
    token = token_of(site)
    assert len(token) == 64
    assert site.config.with_name("fetch.report-token").stat().st_mode & 0o777 == 0o600
    assert shown(site.output)["report"] == {"url": URL, "token": True}
    assert site.manifest()["report"] == {"url": URL}
    payload = site.manifest()["inject"]["payload"]  # type: ignore[index]
    assert [one["mode"] for one in payload if one["path"] == f"/{PATH}"] == ["0600"]
    assert token not in said + json.dumps(site.manifest())
    assert f"Nodes report to {URL}." in said


def test_the_configuration_for_nodes_names_the_credential(
    site: Site, packs: Packs, capsys: pytest.CaptureFixture[str]
) -> None:
    packs("--report", "https://boot.lan:8787/report", "--inject", "updates")
    assert files_of(site.iso)[f"updates/{PATH}"] == f"Authorization: Bearer {token_of(site)}\n".encode()
    assert cli.main(["show", str(site.output), "--config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["report"] == {"url": "https://boot.lan:8787/report", "header_credential": "pxe-fetch.report"}


def test_all_packs_of_a_configuration_have_the_same_token_and_so_the_same_bytes(site: Site, packs: Packs) -> None:
    site.pack = {"report": "auto"}
    packs()
    token, made = token_of(site), site.iso.read_bytes()
    packs()
    assert token_of(site) == token
    assert site.iso.read_bytes() == made


@pytest.mark.parametrize("inject", ["updates", "initrd", "rootfs"])
def test_remove_and_a_pack_without_reports_take_the_token_out(
    site: Site, packs: Packs, inject: str, shown: Callable[[Path], dict[str, object]]
) -> None:
    packs("--report", "auto", "--inject", inject)
    earlier = site.folder / "earlier"
    site.output.rename(earlier)
    site.image = earlier
    packs("--inject", inject)
    assert shown(site.output)["report"] is None
    assert cli.main(["remove", str(earlier), "--quiet"]) == 0
    assert shown(earlier)["report"] is None
    assert "report" not in json.loads((earlier / "manifest.json").read_text())


def test_relocation_to_another_server_warns_that_reports_stay(
    site: Site, packs: Packs, capsys: pytest.CaptureFixture[str]
) -> None:
    packs("--report", "auto")
    capsys.readouterr()
    assert cli.main(["relocate", str(site.output), "--boot-url", "http://10.0.0.1:8080/other/liveos.iso"]) == 0
    assert "relocate-report-stays" not in capsys.readouterr().err
    moved = ["--boot-url", "http://10.0.0.2/liveos.iso", "--artifact-url", "http://10.0.0.2/files/"]
    assert cli.main(["relocate", str(site.output), *moved]) == 0
    assert f"nodes still report to the old server, at {URL}" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("pack", "rest", "reference"),
    [
        ({"report": "auto"}, {"report": {"url": "http://10.0.0.9/r"}}, "report-twice"),
        ({"report": "auto", "boot_url": "tftp://10.0.0.1/liveos.iso"}, {}, "report-no-server"),
        ({"report": "nonsense"}, {}, "url-invalid"),
        ({"report": "http://joe:secret@10.0.0.9/r"}, {}, "url-secret"),
    ],
)
def test_what_nodes_could_not_report_to_is_refused(
    site: Site, refused: Refused, pack: dict[str, object], rest: dict[str, object], reference: str
) -> None:
    site.pack, site.rest = pack, {"artifacts": [ARTIFACT], **rest}
    assert f"error[{reference}]" in refused()
    assert cli.main(["check", "--agent-config", str(site.config), "--offline"]) != 0


@pytest.mark.parametrize("flag", ["nonsense", "http://joe:secret@10.0.0.9/r"])
def test_a_flag_is_checked_as_the_key_is_and_shows_no_secret(refused: Refused, flag: str) -> None:
    said = refused("--report", flag)
    assert "error[url-" in said
    assert "secret@" not in said


@pytest.mark.parametrize("content", ["", "short", "a b c", "x" * 15, "with: colon and more", "\xff" * 40])
def test_a_file_without_a_token_is_refused_and_not_shown(site: Site, refused: Refused, content: str) -> None:
    site.config.with_name("fetch.report-token").write_text(content, encoding="latin-1")
    site.pack = {"report": "auto"}
    said = refused()
    assert "error[report-token]" in said
    assert not content or content not in said
