"""The configurations that `pxe-pack snippet` prints, taken by the servers themselves; nginx hands the layout out."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from packing.checking import Checked
from packing.site import ARTIFACT, Site, with_files
from pxe_pack import cli

Packs = Callable[..., str]


@pytest.fixture
def layout(site: Site, packs: Packs) -> Site:
    """A layout whose files lie elsewhere than their URLs say."""
    (site.folder / "m 1;.bin").write_bytes(b"weights " * 100)
    site.pack = {"artifact_url": "http://10.0.0.2/files/"}
    site.rest = {"artifacts": [{"name": "model", "source": "m 1;.bin", "dest": "/srv/m.bin"}]}
    packs()
    return site


def check_by_dnsmasq(text: str, folder: Path) -> None:
    (folder / "dnsmasq.conf").write_text(text)
    command = ["dnsmasq", "--test", "--conf-file=" + str(folder / "dnsmasq.conf")]
    path = f"{os.environ['PATH']}:/usr/sbin"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": path})
    assert (done.returncode, done.stderr.strip()) == (0, "dnsmasq: syntax check OK.")


def test_dnsmasq_takes_both_and_each_kind_of_client_gets_its_own(layout: Site, snippet: Callable[..., str]) -> None:
    full = snippet("dnsmasq", layout.output)
    check_by_dnsmasq(full, layout.folder)
    lines = full.splitlines()
    assert f"tftp-root={layout.output}" in lines
    assert "dhcp-range=10.0.0.100,10.0.0.199,255.255.255.0,12h" in lines
    assert "dhcp-match=set:pxe,option:client-arch,7" in lines
    assert "dhcp-boot=tag:pxe,tag:!ipxe,bootx64.efi" in lines
    assert "dhcp-boot=tag:ipxe,http://10.0.0.1:8080/boot.ipxe" in lines
    assert "dhcp-match=set:http,option:client-arch,16" in lines
    assert "dhcp-boot=tag:http,tag:!ipxe,http://10.0.0.1:8080/bootx64.efi" in lines
    proxy = snippet("dnsmasq-proxy", layout.output, "--root", "/srv/pxe/", "--subnet", "192.0.2.0/25")
    check_by_dnsmasq(proxy, layout.folder)
    assert "dhcp-range=192.0.2.0,proxy,255.255.255.128" in proxy.splitlines()
    assert "tftp-root=/srv/pxe" in proxy.splitlines()
    assert 'pxe-service=tag:!ipxe,7,"LiveOS",bootx64.efi' in proxy.splitlines()


def test_tftp_alone_announces_nothing(layout: Site, snippet: Callable[..., str]) -> None:
    text = snippet("dnsmasq-tftp", layout.output)
    check_by_dnsmasq(text, layout.folder)
    assert "enable-tftp" in text.splitlines()
    assert "dhcp" not in text.partition("\n")[2]


def test_a_published_layout_is_served_through_its_link(site: Site, snippet: Callable[..., str]) -> None:
    top = site.folder / "published"
    top.mkdir()
    assert cli.main(site.command("--quiet", "--publish", str(top))) == 0
    for folder in (top, top / "current"):
        assert f"    root {top}/current;" in snippet("nginx", folder).splitlines()
        assert f"tftp-root={top}/current" in snippet("dnsmasq-proxy", folder).splitlines()


def test_https_urls_need_a_certificate_and_ipxe_gets_its_script_by_tftp(
    layout: Site, snippet: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    layout.name_iso_at("https://10.0.0.1/x.iso")
    assert cli.main(["snippet", "nginx", str(layout.output)]) == 2
    assert "give one with --tls-cert FILE --tls-key FILE" in capsys.readouterr().err
    assert cli.main(["snippet", "nginx", str(layout.output), "--tls-cert", "/x/cert.pem"]) == 2
    assert "error[tls-incomplete]" in capsys.readouterr().err
    lines = snippet("nginx", layout.output, "--tls-cert", "/x/cert.pem", "--tls-key", "/x/key.pem").splitlines()
    assert "    listen 443 ssl;" in lines
    assert "    ssl_certificate /x/cert.pem;" in lines
    assert "    listen 80;" in lines, "the artifacts are by http still"
    full = snippet("dnsmasq", layout.output)
    check_by_dnsmasq(full, layout.folder)
    assert "dhcp-boot=tag:ipxe,boot.ipxe" in full.splitlines()


def test_they_follow_a_layout_that_moves(layout: Site, snippet: Callable[..., str]) -> None:
    assert cli.main(["relocate", str(layout.output), "--boot-url", "http://192.0.2.7/x.iso", "--quiet"]) == 0
    full = snippet("dnsmasq", layout.output)
    check_by_dnsmasq(full, layout.folder)
    assert "http://192.0.2.7/boot.ipxe" in full
    assert "10.0.0.1" not in full
    assert "location = /x.iso" not in snippet("nginx", layout.output)
    assert "root=live:http://192.0.2.7/x.iso" in (layout.output / "boot.ipxe").read_text()
    assert "10.0.0.1" not in (layout.output / "boot.ipxe").read_text()


def test_arm64_nodes_are_told_their_own_names(layout: Site, snippet: Callable[..., str]) -> None:
    """The layout of an arm64 image, of which no more than the names is looked at."""
    manifest = layout.output / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"machine": "x86_64"', '"machine": "aarch64"'))
    full = snippet("dnsmasq", layout.output)
    check_by_dnsmasq(full, layout.folder)
    lines = full.splitlines()
    assert "dhcp-match=set:pxe,option:client-arch,11" in lines
    assert "dhcp-boot=tag:pxe,tag:!ipxe,bootaa64.efi" in lines
    assert "dhcp-match=set:http,option:client-arch,19" in lines
    assert "bootx64" not in full
    assert 'pxe-service=tag:!ipxe,11,"LiveOS",bootaa64.efi' in snippet("dnsmasq-proxy", layout.output)


NGINX = """\
daemon on;
user root;
pid {folder}/nginx.pid;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  include {folder}/snippet.conf;
}}
"""


def test_nginx_hands_out_every_file_under_its_url(layout: Site, snippet: Callable[..., str]) -> None:
    assert len({url.split("/")[2] for url in check_by_nginx(layout, snippet)}) == 2


def test_nginx_hands_out_files_whose_urls_have_several_slashes(
    layout: Site, snippet: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    moved = ["--boot-url", "http://10.0.0.1//images//liveos.iso", "--artifact-url", "http://10.0.0.2//files//"]
    assert cli.main(["relocate", str(layout.output), *moved]) == 0, capsys.readouterr().err
    assert "http://10.0.0.1//images//liveos.iso" in check_by_nginx(layout, snippet)


def check_by_nginx(layout: Site, snippet: Callable[..., str]) -> list[str]:
    """Have nginx serve each file of the layout, in a network of its own, so that it has its ports. Gives the URLs."""
    outputs = layout.manifest()["outputs"]
    assert isinstance(outputs, list)
    (iso,) = (urlsplit(entry["url"]) for entry in outputs if entry["kind"] == "iso")
    top = f"{iso.scheme}://{iso.netloc}"
    urls = {entry.get("url") or f"{top}/{quote(entry['path'])}": entry["path"] for entry in outputs}
    folder = layout.folder / "nginx"
    (folder / "got").mkdir(parents=True)
    (folder / "snippet.conf").write_text(snippet("nginx", layout.output))
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    server = f"nginx -q -p {folder} -c {folder}/nginx.conf -e {folder}/error.log"
    script = ["set -e", "ip link set lo up", f"{server} -t", server]
    script += [
        f"curl -sS --fail --connect-to ::127.0.0.1: -o {folder}/got/{number} {shlex.quote(url)}"
        for number, url in enumerate(urls)
    ]
    run = ["unshare", "-Urn", "--pid", "--fork", "--kill-child", "sh", "-c", "\n".join(script)]
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(run, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stderr
    for number, (url, path) in enumerate(urls.items()):
        assert (folder / "got" / str(number)).read_bytes() == (layout.output / path).read_bytes(), url
    return [*urls]


@pytest.mark.parametrize("folder", ["images/", "", "boot/", "docs/"])
def test_nginx_hands_out_many_files_of_the_image_by_few_lines(
    site: Site, packs: Packs, snippet: Callable[..., str], folder: str
) -> None:
    """Wherever the ISO is served: also where the layout has a folder of that name itself."""
    (site.folder / "m.bin").write_bytes(b"weights")
    site.rest = {"artifacts": [{"name": "model", "source": "m.bin", "dest": "/srv/m.bin"}]}
    more = [*(f"docs/{number} $1;.txt" for number in range(40)), "other-user-artifacts/x", "top #1"]
    site.image = with_files(site.image, site.folder / "rich.iso", {name: name.encode() for name in more})
    site.pack = {"boot_url": f"http://10.0.0.1/{folder}x.iso", "artifact_url": "http://10.0.0.1/files/"}
    if folder in ("boot/", "docs/"):
        site.pack["leave_out"] = ["*$*"]  # they have a line each there, and nginx' words have no way to write a $
    packs()
    assert snippet("nginx", site.output).count("location") < 20
    check_by_nginx(site, snippet)


def test_files_of_the_image_at_https_are_left_to_another_server(
    site: Site, packs: Packs, snippet: Callable[..., str]
) -> None:
    site.image = with_files(site.image, site.folder / "rich.iso", {"other-user-artifacts/x": b"x"})
    site.pack = {"artifact_url": "https://files.lan/"}
    packs()
    text = snippet("nginx", site.output)
    assert "another server has to serve the image's https://files.lan/x\n" in text
    assert text.count("server {") == 1


@pytest.mark.parametrize("server", ["dnsmasq", "dnsmasq-proxy"])
def test_a_host_that_is_no_address_needs_the_subnet(
    layout: Site, snippet: Callable[..., str], capsys: pytest.CaptureFixture[str], server: str
) -> None:
    assert cli.main(["relocate", str(layout.output), "--boot-url", "http://boot.lan/x.iso", "--quiet"]) == 0
    capsys.readouterr()
    assert cli.main(["snippet", server, str(layout.output)]) == 2
    assert "--subnet" in capsys.readouterr().err
    check_by_dnsmasq(snippet(server, layout.output, "--subnet", "10.9.0.0/29"), layout.folder)


TESTS = Path(__file__).parents[1]
SIX = "http://[2001:DB8::1]:8080/images/liveos.iso"


@pytest.fixture
def six(site: Site, packs: Packs) -> Site:
    """A layout for IPv6."""
    (site.folder / "m.bin").write_bytes(b"weights " * 100)
    site.pack = {"boot_url": SIX}
    site.rest = {"artifacts": [{"name": "model", "source": "m.bin", "dest": "/srv/m.bin"}]}
    packs()
    return site


def in_a_network(script: list[str]) -> subprocess.CompletedProcess[str]:
    """Run commands in a network of their own."""
    run = [
        "unshare",
        "-Urn",
        "--pid",
        "--mount-proc",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        "\n".join(["set -e", *script]),
    ]
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return subprocess.run(run, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}, cwd=TESTS)


def test_dnsmasq_serves_ipv6(six: Site, snippet: Callable[..., str]) -> None:
    full = snippet("dnsmasq", six.output, "--dns", "2001:db8::53", "--dns", "2001:db8::54")
    check_by_dnsmasq(full, six.folder)
    lines = full.splitlines()
    assert "dhcp-range=2001:db8::100,2001:db8::1ff,slaac,64,12h" in lines
    assert "dhcp-option=option6:dns-server,[2001:db8::53],[2001:db8::54]" in lines
    assert "dhcp-option=tag:pxe,tag:!ipxe,option6:bootfile-url,tftp://[2001:db8::1]/bootx64.efi" in lines
    assert "dhcp-option=tag:ipxe,option6:bootfile-url,http://[2001:DB8::1]:8080/boot.ipxe" in lines
    server = f"dnsmasq --no-daemon --conf-file={six.folder}/dnsmasq.conf --interface=nodes --bind-dynamic --user="
    ask = f"nsenter -t $node -n {sys.executable} -m fakes.dhcpv6 node"
    done = in_a_network(
        [
            "ip link add nodes type veth peer name node",
            "ip link set nodes up",
            "ip address add 2001:db8::1/64 dev nodes nodad",
            "unshare -n sleep 60 & node=$!",
            "until [ $(readlink /proc/$node/ns/net) != $(readlink /proc/$$/ns/net) ]; do sleep 0.1; done",
            "ip link set node netns $node",
            "nsenter -t $node -n ip link set node up",
            f"{server} --dhcp-leasefile={six.folder}/leases & sleep 1",
            *(f"{ask} {client}" for client in ("7", "9", "7 iPXE", "16", "11")),
        ]
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "tftp://[2001:db8::1]/bootx64.efi ",
        "tftp://[2001:db8::1]/bootx64.efi ",
        "http://[2001:DB8::1]:8080/boot.ipxe ",
        "http://[2001:DB8::1]:8080/bootx64.efi HTTPClient",
        " ",  # another architecture
    ]
    assert "router advertisement" in done.stderr.lower()


def test_nginx_serves_ipv6(six: Site, snippet: Callable[..., str]) -> None:
    outputs = six.manifest()["outputs"]
    assert isinstance(outputs, list)
    urls = {entry["url"]: entry["path"] for entry in outputs if "url" in entry}
    assert len(urls) == 3  # the ISO, an artifact, a file of the image
    folder = six.folder / "nginx"
    (folder / "got").mkdir(parents=True)
    (folder / "snippet.conf").write_text(snippet("nginx", six.output))
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    server = f"nginx -q -p {folder} -c {folder}/nginx.conf -e {folder}/error.log"
    up = ["ip link set lo up", "ip address add 2001:db8::1/128 dev lo nodad", f"{server} -t", server]
    fetch = [f"curl -sS --globoff --fail -o {folder}/got/{number} '{url}'" for number, url in enumerate(urls)]
    # as the agent sends it: the address as it is written
    raw = "curl -sS --globoff --fail -H 'Host: [2001:DB8::1]:8080' -o /dev/null 'http://[2001:db8::1]:8080/images/liveos.iso'"
    done = in_a_network([*up, *fetch, raw])
    assert done.returncode == 0, done.stderr
    for number, path in enumerate(urls.values()):
        assert (folder / "got" / str(number)).read_bytes() == (six.output / path).read_bytes()


def test_nodes_of_an_ipv6_layout_configure_ipv6(six: Site) -> None:
    for name in ("boot/grub2/grub.cfg", "boot.ipxe"):
        text = (six.output / name).read_text()
        assert f"root=live:{SIX}" in text
        assert " ip=either6" in text
        assert "ip=dhcp" not in text
    assert cli.main(["relocate", str(six.output), "--boot-url", "http://192.0.2.7/x.iso", "--quiet"]) == 0
    assert " ip=dhcp" in (six.output / "boot/grub2/grub.cfg").read_text()
    assert cli.main(["relocate", str(six.output), "--boot-url", SIX, "--quiet"]) == 0
    assert " ip=either6" in (six.output / "boot/grub2/grub.cfg").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["dnsmasq-proxy"], "DHCPv6 has no proxy servers"),
        (["dnsmasq", "--router", "10.0.0.1"], "IPv6 routers announce themselves"),
        (["dnsmasq", "--dns", "10.0.0.53"], "cannot announce the DNS server 10.0.0.53"),
        (["nginx", "--dns", "2001:db8::53"], "nginx announces neither DNS servers nor routers"),
    ],
)
def test_what_a_server_cannot_announce_is_refused(
    six: Site, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    server, *options = arguments
    assert cli.main(["snippet", server, str(six.output), *options]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_dns_and_router_are_announced(
    layout: Site, snippet: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    full = snippet("dnsmasq", layout.output, "--dns", "10.0.0.53", "--dns", "10.0.0.54", "--router", "10.0.0.254")
    check_by_dnsmasq(full, layout.folder)
    assert "dhcp-option=option:dns-server,10.0.0.53,10.0.0.54" in full.splitlines()
    assert "dhcp-option=option:router,10.0.0.254" in full.splitlines()
    assert cli.main(["relocate", str(layout.output), "--boot-url", "http://boot.lan/x.iso", "--quiet"]) == 0
    subnet = ["--subnet", "192.0.2.0/24"]
    assert cli.main(["snippet", "dnsmasq", str(layout.output), *subnet]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "warning[snippet-no-dns]: nodes have to look up boot.lan" in said
    assert "warning[snippet-no-router]: 10.0.0.2 is outside of the nodes' subnet 192.0.2.0/24" in said
    assert cli.main(["snippet", "dnsmasq", str(layout.output), *subnet, "--dns=192.0.2.1", "--router=192.0.2.2"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_hosts_that_only_the_configuration_names_need_dns_and_a_router_too(
    site: Site, packs: Callable[..., str], checked: Callable[..., Checked], capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of artifacts, their digests and chunks, and reports; a proxy instead of the servers behind it."""
    own = {key: value for key, value in ARTIFACT.items() if key != "url"}
    site.rest = {
        "artifacts": [
            {**own, "urls": ["http://models.lan/m.bin", "http://198.51.100.9/m.bin"]},
            {"name": "t", "url": "https://behind.example/t", "sha256_url": "ftp://sums.lan/SUMS", "dest": "/srv/t"},
        ],
        "proxy": {"https": "http://cache.lan:3128"},
        "report": {"url": "http://reports.lan/"},
    }
    packs()
    assert cli.main(["snippet", "dnsmasq", str(site.output)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    names = "models.lan, cache.lan, sums.lan, reports.lan"
    assert f"warning[snippet-no-dns]: nodes have to look up {names}, but" in said
    assert "warning[snippet-no-router]: 198.51.100.9 is outside of the nodes' subnet 10.0.0.0/24" in said
    assert f"nodes have to look up {names}, so" in checked(site.output).found["url-host-name"]["message"]
    announced = ["--dns", "10.0.0.53", "--router", "10.0.0.1"]
    assert cli.main(["snippet", "dnsmasq", str(site.output), *announced]) == 0
    assert "warning" not in capsys.readouterr().err
