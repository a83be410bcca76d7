"""What is fuzzed of the chain of trust: signed programs that are signed again, keys and signatures, the lock file."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from fuzz.inputs import Input
from packing.keys import key_pair, sign
from pxe_fetch.contract import minisign
from pxe_fetch.contract.model import Chunks
from pxe_pack.image.efi import examined
from pxe_pack.lock.lockfile import Locked, lock_path, read_lock, written
from pxe_pack.trust import keys, stub, uki

_STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
_SECTIONS: dict[str, tuple[uki.Part, ...]] = {
    uki.OS_RELEASE: (b"ID=tests\n",),
    uki.COMMAND_LINE: (b"root=live:http://10.0.0.1/x.iso",),
    uki.INITRD: (bytes(5000), b"archive"),
    uki.KERNEL: (bytes(10_000),),
}


def programs() -> list[Input]:
    """The stub of systemd, and a unified kernel image made of it, with most changes in their headers."""
    found = []
    for data in (_STUB.read_bytes(), b"".join(uki.compose(_STUB.read_bytes(), _SECTIONS))):
        coff = int.from_bytes(data[0x3C:0x40], "little")
        found.append(Input(data=data, spans=((0, 64), (coff, coff + 264), (coff, coff + 1024))))
    return found


def compose(path: Path) -> None:
    """Make a program of a stub, and read it as when it is signed again."""
    data = path.read_bytes()
    stub.takes_arguments(data)
    made = b"".join(uki.compose(data, _SECTIONS))
    examined("bootx64.efi", made)
    b"".join(uki.compose(made, _SECTIONS))


def key_files() -> list[Input]:
    """A public key, a secret one, and a signature."""
    with tempfile.TemporaryDirectory() as place:
        pair = key_pair(Path(place))
        file = Path(place) / "fleet.yaml"
        file.write_text("version: 1\n")
        return [Input(data=one.read_bytes()) for one in (pair.public, pair.secret, sign(file, pair))]


def read_key(path: Path) -> None:
    """Read it as a public key, as a secret one, and as a signature."""
    found, problems = keys.read_keys([path])
    if bool(found) == bool(problems):
        raise AssertionError("neither a key nor a problem, or both")
    content = path.read_bytes()
    if found and keys.is_minisign_secret(content):
        raise AssertionError("a secret key was taken for a public one")
    with suppress(minisign.MinisignError):
        minisign.signature(content)


def locks() -> list[Input]:
    """One with mirrors, redirects and chunks."""
    digest = "0123456789abcdef" * 4
    chunks = Chunks(size=1 << 20, digests=bytes.fromhex(digest * 2))
    one = Locked(name="one", urls=("http://a/x",), time="2026-11-30T12:00:00Z", size=5, sha256=digest)
    two = Locked(
        name="two",
        urls=("http://a/y", "http://b/y"),
        final_urls=("http://c/y", "http://b/y"),
        time="2026-11-30T12:00:00Z",
        size=(1 << 20) + 1,
        sha256=digest,
        chunks=chunks,
    )
    return [Input(data=written([one, two]).encode())]


def lock(path: Path) -> None:
    """Read it, and what is written of it."""
    config = path.with_name("locked.yaml")
    lock_path(config).write_bytes(path.read_bytes())
    found = read_lock(config)
    lock_path(config).write_text(written(found.entries.values()))
    if dict(read_lock(config).entries) != dict(found.entries):
        raise AssertionError("it is not read as it was written")
