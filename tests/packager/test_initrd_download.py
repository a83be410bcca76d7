"""Whether an initrd, and the agent, can fetch what they have to: curl, NFS, certificates, squashed initrds, size."""

from __future__ import annotations

import gzip
import json
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.faults import Serve
from fakes.server import Script, Server
from liveos import newc, specials, tiny
from liveos.newc import Entry
from liveos.specials import Inode
from packing import altered
from packing.site import ARTIFACT, Site, files_of, image_with_root
from pxe_pack import cli

Found = Callable[..., dict[str, dict[str, str]]]
Packs = Callable[..., str]
Refused = Callable[..., str]
Edit = Callable[[dict[str, Entry]], None]

CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
FETCH = """\
curl_fetch_url() {{
    local url="$1" outloc="$2"
    if [ -n "$outloc" ]; then
        curl $curl_args --output "$outloc" -- "$url" || return $?
    else
        local outdir
        outdir="$(mkuniqdir /tmp curl_fetch_url)"
        (
            cd "$outdir" || exit
            curl $curl_args --remote-name "$url" || return $?
        ){then}
        outloc="$outdir/$(ls -A "$outdir")"
    fi
    if [ -z "$2" ]; then echo "$outloc"; fi
}}
add_url_handler curl_fetch_url http https ftp tftp
"""


@pytest.fixture
def found(site: Site, capsys: pytest.CaptureFixture[str]) -> Found:
    """The findings about the site's image with its configuration, by reference."""

    def run(*arguments: str) -> dict[str, dict[str, str]]:
        site.write_config()
        cli.main(["check", str(site.image), "--agent-config", str(site.config), "--json", "--offline", *arguments])
        captured = capsys.readouterr()
        assert captured.err == ""
        return {one["reference"]: one for one in json.loads(captured.out.splitlines()[-1])["findings"]}

    return run


def _file(path: str, data: bytes) -> Edit:
    return lambda entries: entries.update({path: Entry(path, stat.S_IFREG | 0o755, data)})


def _link(path: str, target: str) -> Edit:
    return lambda entries: entries.update({path: Entry(path, stat.S_IFLNK | 0o777, target.encode())})


def _edited(site: Site, *edits: Edit) -> None:
    """Give the site an image with a changed initrd."""

    def edit(entries: dict[str, Entry]) -> None:
        for one in edits:
            one(entries)

    site.image = altered.with_initrd(site.image, site.folder / "edited.iso", edit)


@pytest.mark.parametrize(("then", "told"), [("", True), (" || return $?", False)])
def test_a_url_lib_that_takes_half_an_iso_for_a_whole_one(site: Site, found: Found, then: str, *, told: bool) -> None:
    _edited(site, _file("usr/lib/url-lib.sh", FETCH.format(then=then).encode()))
    findings = found()
    assert ("initrd-takes-half" in findings) == told
    if told:
        assert findings["initrd-takes-half"]["severity"] == "warning"
        assert "|| return $?" in findings["initrd-takes-half"]["remedy"]


@pytest.mark.parametrize(("then", "code"), [("", 0), (" || return $?", 18)])
def test_the_finding_and_its_remedy_are_what_the_script_does(tmp_path: Path, then: str, code: int) -> None:
    half = Script(body=b"x" * 100_000, then=Serve(until=0.5))
    script = f"""
mkuniqdir() {{ mkdir "$1/$2"; echo "$1/$2"; }}
add_url_handler() {{ :; }}
{FETCH.format(then=then).replace("/tmp", str(tmp_path))}
fetched=$(curl_fetch_url "$1"); code=$?
wc -c < "$fetched" >&2
exit $code
"""
    with Server({"/liveos.iso": half}) as server:
        done = subprocess.run(["sh", "-c", script, "sh", server.url("/liveos.iso")], check=False, capture_output=True)
    assert done.returncode == code
    if code == 0:
        assert int(done.stderr.splitlines()[-1]) == 50_000


def test_nfs_takes_dracuts_nfs_module(site: Site, found: Found, packs: Packs, refused: Refused) -> None:
    site.pack = {"boot_url": "nfs://10.0.0.1/export/liveos.iso"}
    assert found()["initrd-no-nfs"]["severity"] == "error"
    assert "error[initrd-no-nfs]" in refused()
    _edited(site, _file("usr/lib/nfs-lib.sh", b"nfs_to_var() {\n}\n"))
    assert "initrd-no-nfs" not in found()
    assert "Serve by NFS:   liveos.iso as nfs://10.0.0.1/export/liveos.iso" in packs()
    assert "root=live:nfs://10.0.0.1/export/liveos.iso" in (site.output / "boot/grub2/grub.cfg").read_text()


def test_local_artifacts_of_an_image_that_boots_by_nfs_need_a_url_of_their_own(site: Site, refused: Refused) -> None:
    site.pack = {"boot_url": "nfs://10.0.0.1/export/liveos.iso"}
    site.rest = {"artifacts": [{"name": "m", "source": "m.bin", "dest": "/srv/m"}]}
    (site.folder / "m.bin").write_bytes(b"model")
    _edited(site, _file("usr/lib/nfs-lib.sh", b""))
    assert "error[artifact-url-missing]" in refused()


BUNDLES: dict[str, tuple[tuple[Edit, ...], str]] = {
    "SUSE's": ((_file("var/lib/ca-certificates/ca-bundle.pem", CERTIFICATE),), ""),
    "SUSE's by a link": (
        (
            _link("etc/ssl/ca-bundle.pem", "/var/lib/ca-certificates/ca-bundle.pem"),
            _file("var/lib/ca-certificates/ca-bundle.pem", CERTIFICATE),
        ),
        "",
    ),
    "Fedora's by links": (
        (
            _link("etc/pki/tls/certs/ca-bundle.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
            _file(
                "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", CERTIFICATE.replace(b"BEGIN ", b"BEGIN TRUSTED ")
            ),
        ),
        "",
    ),
    "a dangling link": (
        (_link("etc/ssl/certs/ca-certificates.crt", "../gone.pem"),),
        "/etc/ssl/certs/ca-certificates.crt is a link to etc/ssl/gone.pem, which does not exist",
    ),
    "an empty file": ((_file("etc/ssl/ca-bundle.pem", b""),), "/etc/ssl/ca-bundle.pem is empty"),
    "no certificates": ((_file("etc/ssl/ca-bundle.pem", b"# none\n"),), "/etc/ssl/ca-bundle.pem has no certificates"),
}


@pytest.mark.parametrize("kind", BUNDLES)
def test_a_ca_bundle_in_the_initrd_counts_if_it_has_certificates(site: Site, found: Found, kind: str) -> None:
    edits, words = BUNDLES[kind]
    site.pack = {"boot_url": "https://boot.example/liveos.iso"}
    _edited(site, *edits)
    findings = found()
    assert ("initrd-no-certificates" in findings) == bool(words)
    if words:
        assert words in findings["initrd-no-certificates"]["message"]


IN_ROOT: dict[str, tuple[tuple[Inode, ...], str]] = {
    "none": ((), "none of /etc/pki/tls/certs/ca-bundle.crt"),
    "Debian's": ((Inode("etc/ssl/certs/ca-certificates.crt", data=CERTIFICATE),), ""),
    "SUSE's": ((Inode("var/lib/ca-certificates/ca-bundle.pem", data=CERTIFICATE),), ""),
    "SUSE's, gone": (
        (specials.symlink("etc/ssl/ca-bundle.pem", "/var/lib/ca-certificates/ca-bundle.pem"),),
        "/etc/ssl/ca-bundle.pem is a link to var/lib/ca-certificates/ca-bundle.pem, which does not exist",
    ),
    "an empty one before another": (
        (
            Inode("etc/pki/tls/certs/ca-bundle.crt", data=b""),
            Inode("etc/ssl/certs/ca-certificates.crt", data=CERTIFICATE),
        ),
        "/etc/pki/tls/certs/ca-bundle.crt is empty",
    ),
}


@pytest.mark.parametrize("kind", IN_ROOT)
def test_https_artifacts_take_certificates_in_the_root_filesystem(site: Site, found: Found, kind: str) -> None:
    added, words = IN_ROOT[kind]
    folders = {str(one) for inode in added for one in Path(inode.path).parents} - {".", "etc", "var", "var/lib"}
    contents = [*tiny.tree(), *map(specials.folder, sorted(folders)), *added]
    site.image = image_with_root(site.image, contents, site.folder)
    assert "root-no-certificates" not in found()
    site.rest = {"artifacts": [{**ARTIFACT, "url": "https://files.example/m.bin"}]}
    findings = found()
    assert ("root-no-certificates" in findings) == bool(words)
    if words:
        assert findings["root-no-certificates"]["severity"] == "warning"
        assert words in findings["root-no-certificates"]["message"]


@pytest.mark.parametrize(("url", "is_found"), [("http://files.example/m.bin", False), ("m.bin", True)])
def test_an_https_base_url_counts_where_a_url_is_joined_to_it(
    site: Site, found: Found, url: str, *, is_found: bool
) -> None:
    site.rest = {"defaults": {"base_url": "https://base.example/"}, "artifacts": [{**ARTIFACT, "url": url}]}
    assert ("root-no-certificates" in found()) == is_found


def test_a_ca_file_of_the_site_has_to_be_in_the_image_or_an_artifact(site: Site, found: Found) -> None:
    site.rest = {
        "artifacts": [{**ARTIFACT, "url": "https://files.example/m.bin"}],
        "tls": {"ca_file": "/var/lib/site/ca.pem"},
    }
    assert "tls.ca_file /var/lib/site/ca.pem does not exist" in found()["root-no-certificates"]["message"]
    ca = {**ARTIFACT, "name": "ca", "dest": "/var/lib/site/ca.pem"}
    site.rest["artifacts"] = [*site.rest["artifacts"], ca]  # type: ignore[misc]
    assert "root-no-certificates" not in found()


def _squashed(site: Site, image: str, *, without: tuple[str, ...] = ()) -> None:
    """Make the initrd again as dracut's squash module does: all in an image, outside what mounts it."""
    plain = gzip.decompress(files_of(site.image)["boot/initrd.img"])
    archive, inner = site.folder / "initrd.cpio", site.folder / "inner"
    archive.write_bytes(plain)
    inner.mkdir()
    subprocess.run(["cpio", "-idm", "--quiet"], input=plain, cwd=inner, check=True)
    for name in without:
        (inner / name).unlink()
    (inner / "init").unlink()
    squashfs = site.folder / "inner.img"
    if image == "erofs-root.img":
        squashfs.write_bytes(bytes(4096))
    else:
        subprocess.run(["mksquashfs", inner, squashfs, "-quiet", "-no-progress"], check=True, capture_output=True)
    outer = [
        Entry(".", stat.S_IFDIR | 0o755),
        Entry("usr", stat.S_IFDIR | 0o755),
        Entry("init", stat.S_IFREG | 0o755, b"#!/bin/sh\n"),
        Entry(image, stat.S_IFREG | 0o644, squashfs.read_bytes()),
    ]
    files = {"boot/initrd.img": gzip.compress(newc.archive(outer))}
    site.image = altered.with_files(site.image, site.folder / "squashed.iso", files)


@pytest.mark.parametrize("image", ["squash-root.img", "squashfs-root.img"])
def test_an_initrd_of_dracuts_squash_module_is_looked_into(site: Site, found: Found, packs: Packs, image: str) -> None:
    _squashed(site, image)
    findings = found()
    assert not [one for one in findings if one.startswith(("initrd", "kernel"))]
    packs()
    assert "updates/usr/lib/pxe-fetch/pxe-fetch" in files_of(site.iso)


def test_what_is_missing_in_a_squashed_initrd_is_found(site: Site, found: Found) -> None:
    _squashed(site, "squashfs-root.img", without=("usr/bin/curl",))
    assert found()["initrd-no-curl"]["severity"] == "error"


def test_nothing_is_appended_to_a_squashed_initrd_which_would_hide_it(site: Site, refused: Refused) -> None:
    _squashed(site, "squashfs-root.img")
    said = " ".join(refused("--inject", "initrd").split())
    assert "boot/initrd.img boots from an image inside it, which hides what is appended" in said


def test_an_erofs_in_an_initrd_is_a_note_and_a_damaged_squashfs_an_error(site: Site, found: Found) -> None:
    whole = site.image
    _squashed(site, "erofs-root.img")
    told = found()["initrd-unread"]
    assert (told["severity"], "its content is in an EROFS image" in told["message"]) == ("note", True)
    outer = [Entry("squash-root.img", stat.S_IFREG | 0o644, b"hsqs" + bytes(200))]
    files = {"boot/initrd.img": gzip.compress(newc.archive(outer))}
    site.image = altered.with_files(whole, site.folder / "damaged.iso", files)
    assert found()["initrd-damaged"]["severity"] == "error"


def test_large_initrds_are_a_note_with_their_sum(site: Site, found: Found) -> None:
    assert "initrd-large" not in found()
    initrd = files_of(site.image)["boot/initrd.img"]
    filled = initrd + bytes(200_000_000 - len(initrd))  # zeros after an archive are skipped
    site.image = altered.with_files(site.image, site.folder / "large.iso", {"boot/initrd.img": filled})
    told = found()["initrd-large"]
    assert (told["severity"], "200 MB of initrds" in told["message"]) == ("note", True)
    site.pack = {"inject": "initrd"}
    assert "208 MB of initrds" in found()["initrd-large"]["message"]
