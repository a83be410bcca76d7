"""Folders and files of the administrator whose names have blanks, quotes, line breaks, and bytes that are not UTF-8."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest

from packing.site import Site, files_of
from pxe_pack import cli

Packs = Callable[..., str]
QUOTES = 'it\'s "q"\\ü'
LINES = "line\nbreak\ttab"
NOT_UTF8 = os.fsdecode(b"caf\xe9")
CONFIGURABLE = "a, b #c \"d\" 'e' \\f;{g}"


@pytest.mark.parametrize("how", ["updates", "rootfs"])
@pytest.mark.parametrize("name", [QUOTES, LINES, NOT_UTF8])
def test_name_of_the_output_folder_does_not_change_the_layout(site: Site, packs: Packs, name: str, how: str) -> None:
    (site.folder / name).mkdir()
    packs("--inject", how)
    packs("--inject", how, "--output", site.folder / name / "pxe")
    expected, found = site.output, site.folder / name / "pxe"
    assert (found / "SHA256SUMS").read_bytes() == (expected / "SHA256SUMS").read_bytes()
    assert files_of(found / "liveos.iso") == files_of(site.iso)


def test_image_whose_name_is_not_utf8_is_packed_and_its_layout_can_be_read(
    site: Site, packs: Packs, capsys: pytest.CaptureFixture[str]
) -> None:
    image = site.folder / f"{NOT_UTF8}.iso"
    shutil.copyfile(site.image, image)
    packs("--image", image)
    assert site.manifest()["image"]["name"] == "caf�.iso"  # type: ignore[index]
    assert cli.main(["show", str(site.output)]) == 0
    assert cli.main(["relocate", str(site.output), "--boot-url", "http://10.0.0.9/liveos.iso"]) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_commands_that_a_pack_prints_can_be_pasted_into_a_shell(site: Site, packs: Packs) -> None:
    output = site.folder / QUOTES
    printed = dict(line.split(":", maxsplit=1) for line in packs("--output", output).splitlines() if ":  " in line)
    assert shlex.split(printed["Test"]) == ["pxe-pack", "boot", str(output)]
    verified = subprocess.run(printed["Verify"], shell=True, check=True, capture_output=True, text=True)  # noqa: S602
    assert "liveos.iso: OK" in verified.stdout
    archive = site.folder / f"{QUOTES}.tar"
    unpack = packs("--output", archive, "--format", "tar").splitlines()[-1]
    assert shlex.split(unpack)[1:] == ["tar", "-C", "/srv/pxe", "-xf", str(archive)]


def test_servers_find_the_layout_in_a_folder_of_any_name_that_they_can_be_told(
    site: Site, packs: Packs, snippet: Callable[..., str]
) -> None:
    folder = site.folder / CONFIGURABLE
    folder.mkdir()
    packs("--output", folder / "pxe")
    work = site.folder / "work"
    work.mkdir()
    (work / "dnsmasq.conf").write_text(snippet("dnsmasq-tftp", folder / "pxe"))
    (work / "snippet.conf").write_text(snippet("nginx", folder / "pxe"))
    temporary = " ".join(
        f"{kind}_temp_path {work}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    http = f"http {{ access_log off; {temporary} include {work}/snippet.conf; }}"
    (work / "nginx.conf").write_text(f"user root; pid {work}/pid; events {{}} {http}")
    script = f"""
        set -e
        ip link set lo up
        dnsmasq --conf-file={work}/dnsmasq.conf --user= --group= --pid-file=
        nginx -p {work} -c {work}/nginx.conf -e {work}/error.log
        curl -sS --fail --max-time 20 tftp://127.0.0.1/boot.ipxe -o {work}/tftp
        curl -sS --fail --max-time 20 --connect-to ::127.0.0.1: http://10.0.0.1:8080/images/liveos.iso -o {work}/http
    """
    command = ["unshare", "-Urn", "--pid", "--fork", "--kill-child", "sh", "-c", script]
    search = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": search})
    assert done.returncode == 0, done.stderr
    assert (work / "tftp").read_bytes() == (folder / "pxe/boot.ipxe").read_bytes()
    assert (work / "http").read_bytes() == (folder / "pxe/liveos.iso").read_bytes()


@pytest.mark.parametrize("server", ["nginx", "dnsmasq-tftp"])
@pytest.mark.parametrize("name", [LINES, NOT_UTF8])
def test_folder_that_no_server_can_be_told_is_refused(
    site: Site, packs: Packs, name: str, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = replace(site, folder=site.folder / name)
    packs()
    shutil.move(site.output, moved.folder / "pxe")
    assert cli.main(["snippet", server, str(moved.output)]) == 2
    printed = capsys.readouterr()
    assert "error[snippet-name]: no server's configuration can name" in printed.err
    assert printed.out == ""
