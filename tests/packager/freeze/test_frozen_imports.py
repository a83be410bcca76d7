"""What the agent may import once it is frozen."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from fakes.server import Script, Server
from packing.frozen import SMALL
from pxe_pack.freeze import recipe
from pxe_pack.freeze.agent import PROGRAM
from pxe_pack.freeze.environment import Environment
from pxe_pack.tools import WorkError

EVERY_LIBRARY = """
import sys


def main():
    import ssl
    import backports.zstd
    import certifi, idna
    import requests
    import systemd.journal
    import tenacity
    import yaml
    from nacl._sodium import ffi, lib
    ssl.create_default_context()
    assert backports.zstd.decompress(backports.zstd.compress(b"zstd")) == b"zstd"
    assert yaml.load("a: 1", Loader=yaml.CSafeLoader) == {"a": 1}
    public, secret, signed, opened = (ffi.new("unsigned char[]", length) for length in (32, 64, 66, 66))
    length = ffi.new("unsigned long long *")
    assert lib.sodium_init() >= 0
    assert lib.crypto_sign_seed_keypair(public, secret, bytes(32)) == 0
    assert lib.crypto_sign(signed, length, b"ok", 2, secret) == 0
    assert lib.crypto_sign_open(opened, length, signed, 66, public) == 0 and ffi.buffer(opened, 2)[:] == b"ok"
    if len(sys.argv) > 2:
        fetch = tenacity.retry(stop=tenacity.stop_after_attempt(3))(requests.get)
        session = requests.Session()
        session.trust_env = False
        print(session.get(sys.argv[2], timeout=10).text, end="")
    return 0
"""


def test_every_library_that_the_agent_may_use_works_when_frozen(environment: Environment) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="test-", dir=environment.folder.parent) as folder,
        Server({"/small.bin": Script(body=SMALL)}) as http,
    ):
        sources = Path(folder) / "sources" / "pxe_fetch"
        sources.mkdir(parents=True)
        (sources / "__init__.py").write_text("")
        (sources / "__main__.py").write_text(EVERY_LIBRARY)
        tree = recipe.freeze(sources, version="1", work=Path(folder), environment=environment)
        command: list[str | Path] = [tree / PROGRAM, "get", http.url("/small.bin")]
        ended = subprocess.run(command, env={}, cwd="/", capture_output=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr.decode()) == (0, SMALL, "")


def refused(warnings: str, *, root: Path) -> list[str]:
    """What the recipe says to a list of PyInstaller's."""
    try:
        recipe.refuse_missing_modules(warnings, root=root)
    except WorkError as error:
        return [problem.message for problem in error.problems]
    return []


def test_a_module_that_was_left_out_and_that_the_agent_imports_is_refused(environment: Environment) -> None:
    left_out = "excluded module named pickle - imported by pxe_fetch.a (delayed), logging (delayed)\n"
    [said] = refused(left_out, root=environment.root)
    assert said == "pxe_fetch.a imports pickle, which is not in the frozen agent"
    gone = "missing module named 'requests.nothing' - imported by pxe_fetch.b (top-level)\n"
    assert refused(gone, root=environment.root) == [
        "pxe_fetch.b imports requests.nothing, which is not in the frozen agent"
    ]
    assert len(refused(left_out + gone, root=environment.root)) == 2


def test_a_module_without_a_file_that_can_be_imported_is_not_missing(environment: Environment) -> None:
    """Python 3.13 has no file of collections.abc; os.path never had one."""
    for name in ("collections.abc", "os.path", "sys"):
        assert (
            refused(f"missing module named '{name}' - imported by pxe_fetch.a (top-level)\n", root=environment.root)
            == []
        )


def test_what_others_or_optional_imports_ask_for_may_be_missing(environment: Environment) -> None:
    lines = (
        "missing module named winreg - imported by mimetypes (optional)\n"
        "excluded module named asyncio - imported by tenacity.asyncio (delayed)\n"
        "missing module named nothing.at_all - imported by pxe_fetch.a (delayed, optional)\n"
    )
    assert refused(lines, root=environment.root) == []
