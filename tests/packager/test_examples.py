"""The examples: each is planned as it stands, and does what its README says, with servers of this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.certs import Authority
from fakes.faults import Demand, Status
from fakes.nginx import nginx
from fakes.node import FakeNode, Ran
from fakes.server import Script, Server
from liveos import tiny as tiny_root
from liveos.specials import Inode
from packing.keys import key_pair
from packing.site import files_of, image_with_root
from pxe_fetch.contract.commands import Exit

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(file.parent.name for file in (ROOT / "examples").glob("*/fetch.yaml"))
PXE_PACK = Path(sys.executable).with_name("pxe-pack")
PXE_FETCH = Path(sys.executable).with_name("pxe-fetch")
HELLO = b"hello\n"  # what the placeholders' digest is of
PACKED = "updates/etc/pxe-fetch/fetch.yaml"  # the configuration on an ISO, as a node has it


@dataclass(frozen=True, kw_only=True)
class Example:
    """A copy of an example, with what its README has made first."""

    folder: Path
    agent: Path

    @property
    def layout(self) -> Path:
        return self.folder / "pxe"

    def run(self, program: str | Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """A command in the example's folder."""
        return subprocess.run([program, *words], capture_output=True, text=True, check=False, cwd=self.folder)

    def pack(self) -> None:
        """Pack it, with a small agent and beside the root, so that what a node is told can be read."""
        way = ("--agent", self.agent, "--inject", "updates", "--quiet")
        packed = self.run(PXE_PACK, "--agent-config", "fetch.yaml", *way)
        assert packed.returncode == 0, packed.stderr

    def told(self) -> str:
        """The configuration that nodes of the packed layout have."""
        return files_of(self.layout / "liveos.iso")[PACKED].decode()

    def adapt(self, name: str, node: FakeNode, others: Mapping[str, str]) -> Path:
        """Have a configuration name a fake node's places, and this machine's servers; nothing else is changed."""
        text = (self.folder / name).read_text()
        for theirs, ours in others.items():
            assert theirs in text, theirs
            text = text.replace(theirs, ours)
        text = re.sub(r"(?m)^allowed_roots: .*\n", "", text)
        text = text.replace("start_jitter: 30s", "start_jitter: 0s")
        text = re.sub(r"(?m)^(    dest: )/", rf"\1{node.out}/", text)
        (self.folder / name).write_text(f"{text}\nallowed_roots: [{node.out}]\n")
        return self.folder / name


@pytest.fixture(scope="session")
def image(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with what the examples' READMEs want of it: a site's authority, and a unit to start."""
    folders = [Inode(path, tarfile.DIRTYPE, mode=0o755) for path in ("etc/pki", "etc/pki/site")]
    authority = Authority(tmp_path_factory.mktemp("authority") / "ca").certificate.read_bytes()
    files = [
        Inode("etc/pki/site/ca.pem", data=authority),
        Inode("usr/lib/systemd/system/inference.service", data=b"[Service]\n"),
    ]
    return image_with_root(tiny, [*tiny_root.tree(), *folders, *files], tmp_path_factory.mktemp("image"))


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path, image: Path, agent: Path) -> Example:
    folder = tmp_path / str(request.param)
    made = shutil.ignore_patterns("pxe", "*.log", "weights.bin", "liveos.iso", "site.*", "fleet.yaml.minisig")
    shutil.copytree(ROOT / "examples" / str(request.param), folder, ignore=made)
    shutil.copyfile(image, folder / "liveos.iso")
    if request.param == "quickstart":
        (folder / "files/weights.bin").write_bytes(b"weights" * 1000)
        key_pair(folder)
    return Example(folder=folder, agent=agent)


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    one = FakeNode(folder=tmp_path / "node")
    one.boot_with("quiet")
    one.give_systemctl()
    return one


def only(name: str) -> pytest.MarkDecorator:
    """The test is of one example."""
    return pytest.mark.parametrize("example", [name], indirect=True)


@pytest.mark.parametrize("example", EXAMPLES, indirect=True)
def test_example_is_planned_as_it_stands(example: Example) -> None:
    ran = example.run(PXE_PACK, "--agent-config", "fetch.yaml", "--dry-run", "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert not [event for event in events if event["event"] == "problem"]
    assert not example.layout.exists()


@pytest.mark.parametrize("example", EXAMPLES, indirect=True)
def test_configurations_of_an_example_are_right(example: Example) -> None:
    for config in example.folder.glob("*.yaml"):
        checked = example.run(PXE_FETCH, "check", config)
        assert checked.returncode == 0, checked.stderr


def test_examples_are_told_of() -> None:
    told = (ROOT / "README.md").read_text()
    for name in EXAMPLES:
        assert f"(examples/{name}/" in told


def test_configurations_in_the_documents_are_right(tmp_path: Path) -> None:
    number = 0
    for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for block in re.findall(r"(?s)```yaml\n(.*?)```", file.read_text()):
            whole = (
                block
                if "version: 1" in block
                else f"version: 1\ndefaults: {{base_url: http://h/}}\nartifacts:\n{block}"
            )
            config = tmp_path / "fetch.yaml"
            config.write_text(whole)
            checked = subprocess.run([PXE_FETCH, "check", config], capture_output=True, text=True, check=False)
            assert checked.returncode == 0, f"{file.name}:\n{block}\n{checked.stderr}"
            number += 1
    assert number


def test_links_of_the_documents_lead_somewhere() -> None:
    for file in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]:
        for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", file.read_text()):
            found = (file.parent / target) if target else file
            assert found.exists(), f"{file.name} links to {target}"
            if heading:
                headings = re.findall(r"(?m)^#+ (.*)$", found.read_text())
                anchors = [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings]
                assert heading[1:] in anchors, f"{file.name} links to {target}{heading}"


@only("quickstart")
def test_mistake_is_shown_at_its_line(example: Example) -> None:
    config = example.folder / "fetch.yaml"
    config.write_text(config.read_text().replace("required: false", "requierd: false"))
    ran = example.run(PXE_PACK, "--agent-config", "fetch.yaml", "--dry-run")
    line = config.read_text().splitlines().index("    requierd: false") + 1
    assert ran.returncode == 2
    assert f"fetch.yaml:{line}:5" in ran.stderr
    assert "requierd" in ran.stderr


@only("gpu-models")
def test_models_come_in_pieces_from_both_mirrors(example: Example, node: FakeNode, tmp_path: Path) -> None:
    model, settings = tmp_path / "llm.safetensors", b'{"batch": 8}\n'
    subprocess.run(["truncate", "-s", "12M", model], check=True)
    (recipe,) = re.findall(r"(?m)^split .* > \S+$", (example.folder / "README.md").read_text())
    subprocess.run(recipe, shell=True, check=True, cwd=tmp_path)  # noqa: S602  it is a line for a shell
    scripts = {
        "/models/llm.safetensors": Script(body=model),
        "/models/llm.safetensors.chunks": Script(body=tmp_path / "llm.safetensors.chunks"),
        "/settings/gpu-a100.json": Script(body=settings),
        "/settings/SHA256SUMS": Script(body=f"{hashlib.sha256(settings).hexdigest()}  gpu-a100.json\n".encode()),
    }
    with (
        Server(scripts) as one,
        Server(scripts) as other,
        nginx(tmp_path / "nginx", root=example.layout) as site,
    ):
        ours = {"http://mirror-a.lan": one.url(""), "http://mirror-b.lan": other.url("")}
        example.adapt("fetch.yaml", node, ours | {"http://10.0.0.1/other-user": site.url("/other-user")})
        example.pack()
        (tmp_path / "told.yaml").write_text(example.told())
        node.boot_with("role=gpu-a100")
        ran = node.run("run", "--config", str(tmp_path / "told.yaml"))
        assert one.sent("/models/llm.safetensors")
        assert other.sent("/models/llm.safetensors")
    assert ran.code == Exit.DONE, ran.err
    assert "sha256 of each of its 3 chunks" in ran.err
    assert node.files() == [f"var/lib/models/{name}" for name in ("llm.safetensors", "settings.json", "tokenizer.json")]
    assert (node.out / "var/lib/models/settings.json").read_bytes() == settings
    assert node.systemctl() == ["--no-ask-password start inference.service"]
    node.boot_with("role=login")
    assert "0 artifacts" in node.run("run", "--config", str(tmp_path / "told.yaml")).err


@only("containers")
def test_programs_come_with_their_units(example: Example, node: FakeNode, tmp_path: Path) -> None:
    with Server({"/images/web.tar": Script(body=HELLO)}, directory=example.layout) as server:
        example.adapt(
            "fetch.yaml",
            node,
            {"http://10.0.0.1/other": server.url("/other"), "http://10.0.0.1/images": server.url("/images")},
        )
        example.pack()
        (tmp_path / "told.yaml").write_text(example.told())
        ran = node.run("run", "--config", str(tmp_path / "told.yaml"))
    assert ran.code == Exit.DONE, ran.err
    program = example.folder / "files/app/bin/app"
    assert (node.out / "srv/app/bin/app").read_bytes() == program.read_bytes()
    assert (node.out / "srv/app/bin/app").stat().st_mode & 0o111
    units = node.out / "etc/systemd/system"
    assert sorted(node.systemctl()) == [f"--no-ask-password start {name}.service" for name in ("app", "web")]
    for unit in units.iterdir():
        assert "After=pxe-fetch.target\n" in unit.read_text()


@only("containers")
def test_units_are_right_to_systemd(example: Example, tmp_path: Path) -> None:
    programs = [tmp_path / "root" / path for path in ("srv/app/bin/app", "usr/bin/podman")]
    verified(tmp_path / "root", [*(example.folder / "files").glob("*.service")], programs=programs)


@only("nfs")
def test_units_of_the_share_are_right_to_systemd_and_as_documented(example: Example, tmp_path: Path) -> None:
    units = [example.folder / f"mnt-artifacts.{kind}" for kind in ("mount", "automount")]
    verified(tmp_path / "root", units, programs=[])
    documented = (ROOT / "docs/fetch-yaml.md").read_text()
    for file in (*units, example.folder / "share.conf"):
        assert file.read_text() in documented


def verified(root: Path, units: list[Path], *, programs: list[Path]) -> None:
    """Have systemd look at units, in a root that has what they name."""
    folder = root / "etc/systemd/system"
    folder.mkdir(parents=True)
    for program in programs:
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_bytes(b"\x7fELF")
        program.chmod(0o755)
    there = ("sysinit", "basic", "shutdown", "remote-fs", "remote-fs-pre", "network", "network-online", "umount")
    for name in (*there, "pxe-fetch", "multi-user"):
        (folder / f"{name}.target").write_text(f"[Unit]\nDescription={name}\n")
    for unit in units:
        shutil.copyfile(unit, folder / unit.name)
    names = [unit.name for unit in units]
    command = ["systemd-analyze", "verify", f"--root={root}", "--man=no", "--recursive-errors=no", *names]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert not [line for line in ran.stderr.splitlines() if any(name in line for name in names)], ran.stderr


@only("site-tls")
def test_site_knows_its_nodes_by_certificate_and_token(example: Example, node: FakeNode, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    issued, client = authority.issue("localhost", alternative="DNS:localhost"), authority.issue("node")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # takes sites' own certificates, strict to RFC 5280 or not
    context.load_verify_locations(cafile=authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(issued.certificate, issued.key)
    pem = client.certificate.read_text() + client.key.read_text()
    node.credential("pxe-fetch.client.pem", pem)
    node.credential("pxe-fetch.token", "Authorization: Bearer no-hex-digits\n")
    node.write("sys/class/net/eth0/address", "52:54:00:00:00:01\n")
    node.write("sys/class/net/eth0/device", "")
    scripts = {
        "/nodes/52:54:00:00:00:01/keys.tar": Script(
            body=HELLO, then=Demand(name="Authorization", value="Bearer no-hex-digits")
        )
    }
    with Server(scripts, tls=context) as server:
        ours = {
            "https://secrets.lan": server.url(""),
            "[.lan, ": "[localhost, .lan, ",
            "/etc/pki/site/ca.pem": str(authority.certificate),
            "/run/credentials/pxe-fetch.service": node.environment["CREDENTIALS_DIRECTORY"],
        }
        config = example.adapt("fetch.yaml", node, ours)
        ran = node.run("run", "--config", str(config))
        assert ran.code == Exit.DONE, ran.err
        assert (node.out / "run/site/keys.tar").stat().st_mode & 0o777 == 0o600
        assert "no-hex-digits" not in ran.err + json.dumps(ran.state)
        (node.out / "run/site/keys.tar").unlink()
        node.credential("pxe-fetch.token", "Authorization: Bearer stolen\n")
        assert node.run("run", "--config", str(config)).code == Exit.REFUSED


@only("nfs")
def test_share_comes_first_and_a_web_server_is_there_where_it_is_not(
    example: Example, node: FakeNode, tmp_path: Path
) -> None:
    share = tmp_path / "share"
    share.mkdir()
    (share / "packages.tar").write_bytes(HELLO)
    (share / "node1.csv").write_bytes(b"1,2\n")
    (share / "SHA256SUMS").write_text(f"{hashlib.sha256(b'1,2' + bytes([10])).hexdigest()}  node1.csv\n")
    node.write("proc/sys/kernel/hostname", "node1\n")
    with Server({"/packages.tar": Script(body=HELLO)}) as server:
        config = example.adapt("fetch.yaml", node, {"/mnt/artifacts": str(share), "http://mirror.lan": server.url("")})
        assert node.run("run", "--config", str(config)).code == Exit.DONE
        assert not server.asked
        assert node.files() == ["srv/data.csv", "srv/packages.tar"]
        shutil.rmtree(share)
        shutil.rmtree(node.out)
        config.write_text(
            config.read_text() + "defaults: {retry: {attempts_without_progress: 2, base: 1ms, max: 2ms}}\n"
        )
        ran = node.run("run", "--config", str(config))
        assert server.asked
    assert ran.code == Exit.DEGRADED
    assert node.files() == ["srv/packages.tar"]


@only("fleet")
def test_fleet_takes_the_pinned_configuration_and_no_other(example: Example, node: FakeNode) -> None:
    scripts = {f"/fleet/{name}.conf": Script(body=HELLO) for name in ("base", "storage", "worker")}
    with Server(scripts | {"/report": Script(faults=[Status(204)])}) as server:
        ours = {"http://10.0.0.1/fleet/": server.url("/fleet/"), "http://10.0.0.1:8080": server.url("")}
        config = example.adapt("fleet.yaml", node, ours)
        example.adapt("fetch.yaml", node, {})
        example.pack()
        node.write("etc/pxe-fetch/fetch.yaml", example.told())
        for role, expected in (("worker7", "worker"), ("none", None)):
            server.scripts["/fleet.yaml"] = Script(body=config.read_bytes())
            arguments = pinned(example, url=server.url("/fleet.yaml"))
            node.boot_with(f"{arguments} role={role}")
            ran = node.run("run")
            assert ran.code == Exit.DONE, ran.err
            placed = {one["name"] for one in artifacts(ran) if one["phase"] != "skipped"}
            assert placed == {"base", expected} - {None}
            config.write_text(config.read_text() + "# another\n")
        server.scripts["/fleet.yaml"] = Script(body=config.read_bytes())
        assert node.run("run").code == Exit.REFUSED
        assert len(server.asked_for("/report")) == 2
    checked = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=example.layout, check=False)
    assert checked.returncode == 0


def pinned(example: Example, *, url: str) -> str:
    """The agent's kernel arguments once `pxe-pack pin` has written them: once each, in every entry."""
    ran = example.run(PXE_PACK, "pin", "pxe/", "fleet.yaml", "--url", url)
    assert ran.returncode == 0, ran.stderr
    scripts = [(example.layout / path).read_text() for path in ("boot/grub2/grub.cfg", "boot.ipxe")]
    by_grub, by_ipxe = (re.findall(r"(?m)^\s*(?:linux|kernel) .*$", script) for script in scripts)
    assert by_grub
    assert by_ipxe
    lines = [*by_grub, *(line.removesuffix(" || goto failed") for line in by_ipxe)]
    found = {" ".join(re.findall(r"pxe-fetch\S+", line)) for line in lines}
    (arguments,) = found
    assert arguments.count("pxe-fetch.config=") == arguments.count("pxe-fetch.config.sha256=") == 1
    return arguments


def artifacts(ran: Ran) -> list[dict[str, object]]:
    """Those in the state."""
    found = ran.state["artifacts"]
    assert isinstance(found, list)
    return found


def test_a_second_quickstart_leaves_the_network_of_the_first_alone() -> None:
    """In a network of its own."""
    script = "ip tuntap add pxe0 mode tap; examples/quickstart/serve; echo $?; ip link show pxe0"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    ran = subprocess.run(
        ["unshare", "-Urn", "bash", "-c", script],
        cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stderr == "error: pxe0 exists: is this running already?\n"
    assert ran.stdout.startswith("1\n")
    assert "pxe0" in ran.stdout
