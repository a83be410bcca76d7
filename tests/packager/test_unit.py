"""The unit as it comes into an image: fitted to its systemd, enabled, verified, and rated."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from liveos import tiny
from packing.site import Site, files_of, image_with_root, take_out
from pxe_fetch.contract.model import Artifact, FetchConfig, Proxy, Report
from pxe_fetch.contract.paths import AGENT, DEFAULT_ROOTS, KEPT_DIR, PROTECTED, STATE_DIR, UNIT_NAME, WANTS_LINK
from pxe_pack.unit import SINCE, fitted_unit, service_for, unit_files, unit_problems

Packs = Callable[..., str]
SERVICE = (unit_files() / UNIT_NAME).read_text()


def here() -> int:
    """This machine's systemd."""
    said = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.split()[1])


def names_of(text: str) -> set[str]:
    return set(re.findall(r"^(\w+)=", text, re.MULTILINE))


@pytest.mark.parametrize("systemd", [245, 250, 252, 253, 254, 255, 258, None])
def test_what_a_systemd_does_not_know_is_left_out(systemd: int | None) -> None:
    names = names_of(fitted_unit(SERVICE, systemd=systemd, roots=DEFAULT_ROOTS))
    unknown = {name for name, since in SINCE.items() if since > (systemd or 0)} if systemd else set(SINCE)
    assert not names & unknown
    assert names_of(SERVICE) - names <= unknown
    assert {"ExecStart", "Type", "ReadWritePaths", "ProtectSystem"} <= names


@pytest.mark.parametrize(("systemd", "by"), [(245, set()), (252, {"LoadCredential"}), (255, {"ImportCredential"})])
def test_credentials_come_by_what_the_systemd_has_for_them(systemd: int, by: set[str]) -> None:
    text = fitted_unit(SERVICE, systemd=systemd, roots=DEFAULT_ROOTS, credentials=["pxe-fetch.token"])
    assert {name for name in names_of(text) if name.endswith("Credential")} == by
    assert ("LoadCredential=pxe-fetch.config\nLoadCredential=pxe-fetch.token\n" in text) == (systemd == 252)


@pytest.mark.parametrize("systemd", [245, 252, 255])
@pytest.mark.parametrize("roots", [DEFAULT_ROOTS, ["/run", "/var/lib/systemd-like"]])
def test_places_of_the_system_are_read_only_whatever_the_roots_are(systemd: int, roots: Sequence[str]) -> None:
    lines = fitted_unit(SERVICE, systemd=systemd, roots=roots).splitlines()
    given = [word for line in lines if line.startswith("ReadOnlyPaths=") for word in line.partition("=")[2].split()]
    assert sorted(given) == sorted(f"-{place}" for place in PROTECTED if place not in {STATE_DIR, KEPT_DIR})


@pytest.mark.parametrize("systemd", [245, 250, 252, 255])
def test_systemd_verifies_it_and_rates_it(systemd: int) -> None:
    assert unit_problems(fitted_unit(SERVICE, systemd=systemd, roots=DEFAULT_ROOTS)) == []


def test_a_fault_in_the_unit_is_found() -> None:
    (problem,) = unit_problems(SERVICE.replace("Type=notify", "Type=notifi"))
    assert problem.reference == "unit-invalid"
    assert "notifi" in problem.message
    exposed = re.sub(r"^(Protect|Restrict|Private|SystemCall|Capability|NoNew).*\n", "", SERVICE, flags=re.MULTILINE)
    assert "unit-exposed" in {problem.reference for problem in unit_problems(exposed)}


@pytest.mark.parametrize(
    ("roots", "lines"),
    [
        (["/srv/models", "/opt"], {"ReadWritePaths=-/srv/models -/opt", "ProtectHome=yes", "PrivateTmp=yes"}),
        (["/home/app"], {"ReadWritePaths=-/home/app", "ProtectHome=read-only", "PrivateTmp=yes"}),
        (["/var/tmp/x"], {"ReadWritePaths=-/var/tmp/x", "ProtectHome=yes", "PrivateTmp=no"}),
        (["/a b/50%"], {"ReadWritePaths=-/a\\x20b/50%%"}),
    ],
)
def test_the_sandbox_follows_the_allowed_roots(roots: list[str], lines: set[str]) -> None:
    assert lines <= set(fitted_unit(SERVICE, systemd=255, roots=roots).splitlines())


def test_the_packed_unit_holds_in_the_images_own_root(site: Site, packs: Packs, tmp_path: Path) -> None:
    version = min(here(), tiny.SYSTEMD_VERSION)
    contents = [
        replace(inode, path=inode.path.replace(str(tiny.SYSTEMD_VERSION), str(version))) for inode in tiny.tree()
    ]
    site.image = image_with_root(site.image, contents, tmp_path)
    packs("--inject", "rootfs")
    squashfs = take_out(site.iso, "liveos/rootfs.img", tmp_path / "root.squashfs")
    root = tmp_path / "root"
    command = ["unsquashfs", "-q", "-n", "-no-xattrs", "-d", str(root), str(squashfs)]
    subprocess.run([*command, "usr/lib/systemd", "usr/lib/pxe-fetch", "etc"], check=True, capture_output=True)
    assert (root / WANTS_LINK.lstrip("/")).readlink() == Path("../pxe-fetch.target")
    assert (root / AGENT.lstrip("/")).stat().st_mode & 0o111
    verify = ["systemd-analyze", "verify", f"--root={root}", "--man=no", UNIT_NAME, "multi-user.target"]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert "pxe-fetch" not in done.stderr
    rate = ["systemd-analyze", "security", "--offline=true", "--threshold=21", f"--root={root}", UNIT_NAME]
    subprocess.run(rate, check=True, capture_output=True)


def test_roots_below_run_are_made_at_boot(site: Site, packs: Packs) -> None:
    site.rest["allowed_roots"] = ["/srv", "/run/models"]
    packs("--inject", "updates")
    files = files_of(site.iso)
    assert b'd "/run/models" 0755 root root -' in files["updates/usr/lib/tmpfiles.d/pxe-fetch.conf"]
    assert not [path for path in files if path.startswith("updates/run")]


def test_every_credential_of_the_configuration_is_loaded_where_systemd_cannot_import_them() -> None:
    token = Artifact(name="m", dest="/srv/m", header_credential="pxe-fetch.token", query_credential="pxe-fetch.sas")
    report = Report(header_credential="pxe-fetch.report", query_credential="pxe-fetch.site")
    config = FetchConfig(artifacts=(token,), proxy=Proxy(credential="pxe-fetch.proxy"), report=report)
    loaded = re.findall(r"(?m)^LoadCredential=(.*)$", service_for(config, systemd=252))
    names = ("config", "proxy", "report", "sas", "site", "token")
    assert loaded == [f"pxe-fetch.{name}" for name in names]
