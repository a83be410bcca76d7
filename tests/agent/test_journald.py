"""What a real journald makes of the agent's entries, also of an agent that is gone before journald gets to them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest

from fakes.node import PROGRAM, FakeNode
from fakes.server import Script, Server
from pxe_fetch.contract.paths import UNIT_NAME, MessageId

BODY = random.Random(1).randbytes(50_000)
# A journald of its own, below a /run that nobody else sees. It is stopped while the agent runs, from its first entry to
# its end: that is what a busy node comes to. "$@" is the agent.
SCRIPT = """\
set -e
mount -t tmpfs run /run
mkdir -p /run/systemd/journald.conf.d
printf '%s\\n' '[Journal]' Storage=volatile Audit=no ReadKMsg=no ForwardToWall=no >/run/systemd/journald.conf.d/a.conf
env -u RUNTIME_DIRECTORY /lib/systemd/systemd-journald 2>&1 &
journald=$!
trap 'kill -CONT $journald; kill $journald; wait $journald || :' EXIT
for _ in $(seq 100); do [ -S /run/systemd/journal/stdout ] && break; sleep 0.1; done
kill -STOP $journald
systemd-cat "$@"
kill -CONT $journald
journalctl --sync
journalctl --directory /run/log/journal/* --unit pxe-fetch --output json
"""
# What the service manager does: it says which stream is the journal, and puts the agent into a cgroup of that name.
AS_SERVICE = PROGRAM.replace(
    "sys.exit(",
    """\
import os
stream = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{stream.st_dev}:{stream.st_ino}"
journal.CGROUP = sys.argv[1] + "/proc/self/cgroup"
sys.exit(""",
)


@pytest.mark.skipif(os.geteuid() != 0, reason="journald wants to be root")
@pytest.mark.parametrize(
    "groups",
    [f"0::/system.slice/{UNIT_NAME}\n", f"12:pids:/system.slice\n1:name=systemd:/system.slice/{UNIT_NAME}\n"],
    ids=["cgroup2", "cgroup1"],
)
def test_entries_of_an_agent_that_is_gone_belong_to_its_unit(node: FakeNode, groups: str) -> None:
    node.write("proc/self/cgroup", groups)
    with Server({"/m": Script(body=BODY)}) as server:
        config = node.write("fetch.yaml", node.config(node.entry("m", server.url("/m"), BODY)))
        agent = [sys.executable, "-c", AS_SERVICE, str(node.root), "run", "--config", str(config)]
        ran = subprocess.run(
            ["unshare", "-m", "sh", "-c", SCRIPT, "sh", *agent],
            env=os.environ | {"RUNTIME_DIRECTORY": str(node.state_file.parent)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert ran.returncode == 0, ran.stderr
    entries = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    told = [entry["MESSAGE_ID"] for entry in entries]
    assert told[-1] == MessageId.DONE, ran.stdout
    assert {MessageId.START, MessageId.VERIFIED, MessageId.PLACED} <= {*told}
    # Where in our source an entry is sent from is always the same, and of no use to a reader.
    assert not any("CODE_FILE" in entry for entry in entries)
    # Otherwise this shows nothing: journald found the agent alive.
    assert not any("_SYSTEMD_UNIT" in entry or "_COMM" in entry for entry in entries)
