"""A node as a folder: its kernel command line, its configuration files, its facts, and the agent run on it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from pxe_fetch import cli
from pxe_fetch.reporting import journal

PROGRAM = """\
import sys
from pxe_fetch import cli
from pxe_fetch.reporting import journal
journal.CONSOLE = sys.argv[1] + "/dev/console"
sys.exit(cli.main(sys.argv[2:], root=sys.argv[1]))
"""

Entry = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command of the agent did: its exit code, what it wrote, and the state file afterwards."""

    code: int
    out: str
    err: str
    state: dict[str, object]

    def artifact(self, name: str) -> dict[str, object]:
        """The artifact `name` in the state."""
        artifacts = self.state["artifacts"]
        assert isinstance(artifacts, list)
        (found,) = [one for one in artifacts if one["name"] == name]
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True, kw_only=True)
class FakeNode:
    """Everything lies below `folder`; `out` is the one allowed root of the configurations made here."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def state_file(self) -> Path:
        return self.folder / "run/state.json"

    def write(self, path: str, text: str) -> Path:
        """Make the file `path` of the node."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def boot_with(self, arguments: str) -> None:
        """Have the kernel command line say `arguments`."""
        self.write("proc/cmdline", arguments + "\n")

    def credential(self, name: str, text: str) -> None:
        """Give the service a credential."""
        directory = self.folder / "credentials"
        directory.mkdir(exist_ok=True)
        (directory / name).write_text(text)
        self.environment["CREDENTIALS_DIRECTORY"] = str(directory)

    def give_systemctl(self, command: str = "exit 0") -> None:
        """Put a systemctl on the node's PATH that writes down its arguments, and runs the shell's `command`."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        script = folder / "systemctl"
        script.write_text(f'#!/bin/sh\n[ $1 = show ] || echo "$@" >> {self.folder}/asked\n{command}\n')
        script.chmod(0o755)
        self.environment["PATH"] = f"{folder}:{os.environ['PATH']}"

    def systemctl(self) -> list[str]:
        """What systemctl was asked so far."""
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.exists() else []

    def config(self, *artifacts: Entry, **others: object) -> str:
        """A configuration with `artifacts`, each with what they all need, unless they say otherwise."""
        defaults = {"retry": {"attempts_without_progress": 2, "base": "1ms", "max": "5ms"}}
        top = {"version": 1, "defaults": defaults, "allowed_roots": [str(self.out)], "artifacts": [*artifacts]}
        return yaml.safe_dump(top | others, sort_keys=False)

    def entry(self, name: str, url: str, body: bytes, /, **others: object) -> Entry:
        """An artifact of `body`, which goes to `name` below `out`."""
        digest = hashlib.sha256(body).hexdigest()
        return {"name": name, "url": url, "sha256": digest, "dest": str(self.out / name)} | others

    def run(self, *words: str) -> Ran:
        """The agent's command `words` in this process, as __main__ would call it."""
        out, err = io.StringIO(), io.StringIO()
        before = dict(os.environ)
        terminal, journal.CONSOLE = journal.CONSOLE, str(self.root / "dev/console")
        os.environ.clear()
        os.environ.update(self._environment(before))
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = cli.main(words, root=str(self.root))
        finally:
            os.environ.clear()
            os.environ.update(before)
            journal.CONSOLE = terminal
        return Ran(code=code, out=out.getvalue(), err=err.getvalue(), state=self.state())

    def run_config(self, *artifacts: Entry, **others: object) -> Ran:
        """`run --config` with a configuration of `artifacts`."""
        file = self.folder / "fetch.yaml"
        file.write_text(self.config(*artifacts, **others))
        return self.run("run", "--config", str(file))

    def run_on_full_disk(self, *artifacts: Entry) -> int:
        """The exit code of a run with `artifacts`, in a process of its own, where no file gets beyond 1 MB."""
        file = self.folder / "fetch.yaml"
        file.write_text(self.config(*artifacts))
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(self.root), "run", "--config", str(file)],
            env=self._environment(os.environ) | {"PYTHONDONTWRITEBYTECODE": "1"},
            # A limit on the size of files fails a write as a full disk does, without a file system of our own.
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
            capture_output=True,
            check=False,
        )
        return done.returncode

    def start(self, *words: str, before: str = "", inside: Sequence[str] = ()) -> subprocess.Popen[str]:
        """The same in a process of its own, which the caller waits for and which runs the lines `before` first.

        `inside` are the words that run a command somewhere else: nsenter(1).
        """
        command = [*inside, sys.executable, "-c", before + PROGRAM, str(self.root), *words]
        return subprocess.Popen(
            command,
            env=self._environment(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def state(self) -> dict[str, object]:
        """The state file; {} where there is none that can be read."""
        try:
            document = json.loads(self.state_file.read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}

    def files(self) -> Sequence[str]:
        """Every file and link below `out`, hidden ones too, as relative paths."""
        return sorted(str(path.relative_to(self.out)) for path in self.out.rglob("*") if not path.is_dir())

    def _environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        kept = {name: ours[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in ours}
        return kept | {"RUNTIME_DIRECTORY": str(self.state_file.parent)} | self.environment
