"""A configuration by URL, pinned in a layout: by its digest or by a signature, in every file that names it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from packing.keys import KeyPair, key_pair, sign
from packing.pins import URL, Pins
from packing.site import ARTIFACT
from pxe_pack import cli, tools
from pxe_pack.output import locked

Packs = Callable[..., str]
ELSEWHERE = "https://10.0.0.2/other/fleet.yaml"
PAST, FUTURE = "2001-02-03", "2999-12-31"


def test_url_and_digest_are_in_every_entry_of_grub_and_ipxe_and_in_the_manifest(pins: Pins) -> None:
    said = pins.done()
    expected = [f"pxe-fetch.config={URL}", f"pxe-fetch.config.sha256={pins.digest}"]
    assert pins.arguments() == [expected] * len(pins.arguments())
    assert len(pins.arguments()) >= 2
    assert pins.recorded["sha256"] == pins.digest
    assert pins.recorded["url"] == URL
    assert f"at {URL}" in said
    assert f"pxe-pack boot {pins.site.output}" in said


def test_a_pin_replaces_an_earlier_one_and_is_removed(pins: Pins) -> None:
    before, facts = pins.content(), pins.site.manifest()
    pins.done()
    pins.write(serial=6)
    pins.done(url=ELSEWHERE)
    assert all(one[0] == f"pxe-fetch.config={ELSEWHERE}" for one in pins.arguments())
    assert pins.run(pins.fleet) == 0, "the URL is the one pinned before"
    assert pins.recorded["url"] == ELSEWHERE
    assert pins.run("--remove") == 0
    after = pins.content()
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed == {"fleet.yaml", "manifest.json", "SHA256SUMS"}
    assert pins.site.manifest() == {**facts, "pinned_serial": 6}


def test_a_hand_made_pin_is_replaced_and_words_for_init_stay_behind(pins: Pins) -> None:
    grub = pins.site.output / "boot/grub2/grub.cfg"
    text = grub.read_text().replace(" rd.live.image", " rd.live.image 'pxe_fetch.config=http://h/x' mine=yes")
    grub.write_text("\n".join(f"{line} -- single" if "root=live:" in line else line for line in text.splitlines()))
    pins.done()
    assert "http://h/x" not in grub.read_text()
    (line,) = [line for line in grub.read_text().splitlines() if "root=live:" in line]
    assert line.endswith(f"pxe-fetch.config.sha256={pins.digest} -- single")
    assert "mine=yes" in line


def test_files_of_the_sites_own_that_load_a_kernel_are_pinned_too(pins: Pins) -> None:
    own = pins.site.output / "boot/grub2/52-54-00.cfg"
    own.write_text("menuentry special {\n  linux /boot/vmlinuz role=storage\n  initrd /boot/initrd.img\n}\n")
    notes = pins.site.output / "notes.cfg"
    notes.write_text("[no] 'script of GRUB\n")
    pins.done()
    assert f"role=storage pxe-fetch.config={URL} pxe-fetch.config.sha256={pins.digest}\n" in own.read_text()
    assert notes.read_text() == "[no] 'script of GRUB\n"


def test_files_that_grub_looks_for_by_a_nodes_address_are_pinned_too(pins: Pins) -> None:
    folder = pins.site.output / "boot/grub2"
    own = [folder / "grub.cfg-01-52-54-00-12-34-56", folder / "grub.cfg-C0A80001"]
    for file in own:
        file.write_text("menuentry special {\n  linux /boot/vmlinuz role=storage\n  initrd /boot/initrd.img\n}\n")
    pins.done()
    for file in own:
        assert f"role=storage pxe-fetch.config={URL} pxe-fetch.config.sha256={pins.digest}\n" in file.read_text()
    assert pins.run("--remove") == 0
    assert all("pxe-fetch" not in file.read_text() for file in own)


def test_secret_in_the_url_is_warned_of_when_it_is_pinned_and_not_when_it_is_replaced(pins: Pins) -> None:
    secret = f"{URL}?sig=0123456789abcdef"
    for url in (secret, URL):
        assert pins.run(pins.fleet, "--url", url) == 0
        said = pins.capsys.readouterr().err
        assert ("warning[secret-in-url]: the configuration for nodes" in said) == (url == secret)


def test_dry_run_writes_nothing(pins: Pins) -> None:
    before = pins.content()
    assert pins.run(pins.fleet, "--url", URL, "--dry-run", "--json") == 0
    assert pins.content() == before
    (result,) = [json.loads(line) for line in pins.capsys.readouterr().out.splitlines() if '"result"' in line]
    assert result["pinned"]["sha256"] == pins.digest
    assert "boot/grub2/grub.cfg" in result["changed"]


def test_a_signed_configuration_needs_no_digest_and_minisign_verifies_it(trusting: Pins, keys: KeyPair) -> None:
    said = trusting.done("--sign", keys.secret)
    assert trusting.arguments() == [[f"pxe-fetch.config={URL}"]] * len(trusting.arguments())
    assert trusting.recorded["signed_by"] == keys.id
    assert f"fleet.yaml.minisig at {URL}.minisig" in said
    subprocess.run(["minisign", "-V", "-H", "-q", "-p", keys.public, "-m", trusting.fleet], check=True)
    first = trusting.content()
    secret = keys.secret.read_bytes().splitlines()[1]
    assert not [path for path, content in first.items() if secret in content]
    trusting.write(serial=7)
    trusting.done("--sign", keys.secret)
    second = trusting.content()
    changed = {path.name for path in second if second[path] != first.get(path)}
    assert changed == {"fleet.yaml", "fleet.yaml.minisig", "manifest.json", "SHA256SUMS"}


def test_dry_run_tries_the_key_and_leaves_no_signature(trusting: Pins, keys: KeyPair) -> None:
    before = trusting.content()
    assert trusting.run(trusting.fleet, "--url", URL, "--sign", keys.secret, "--dry-run") == 0
    assert trusting.content() == before


def test_a_signature_beside_the_file_is_taken(trusting: Pins, keys: KeyPair) -> None:
    sign(trusting.fleet, keys)
    trusting.done()
    assert trusting.recorded["signed_by"] == keys.id


def test_without_a_fitting_signature_the_digest_is_pinned_and_that_is_said(trusting: Pins, keys: KeyPair) -> None:
    assert "there is no fleet.yaml.minisig" in trusting.done()
    assert all(len(one) == 2 for one in trusting.arguments())
    sign(trusting.fleet, keys)
    trusting.write(parallel=2)
    assert "fleet.yaml.minisig does not fit: the file has changed" in trusting.done()
    sign(trusting.fleet, keys, "-l")
    assert "legacy format" in trusting.done()
    sign(trusting.fleet, key_pair(trusting.site.folder, "other"))
    assert "which the image does not trust" in trusting.done()
    assert trusting.recorded["signed_by"] is None


def test_a_key_that_the_image_does_not_trust_signs_nothing(trusting: Pins, pins: Pins) -> None:
    other = key_pair(trusting.site.folder, "other")
    said = pins.refused("--sign", other.secret)
    assert "error[sign-untrusted]" in said
    assert not (trusting.site.folder / "fleet.yaml.minisig").exists()


def test_an_image_without_keys_takes_no_signature(pins: Pins, keys: KeyPair) -> None:
    assert "has no public keys in its image" in pins.refused("--sign", keys.secret)


def test_minisign_asks_for_the_password_in_the_users_terminal(trusting: Pins, tmp_path: Path) -> None:
    pair = key_pair(tmp_path, "locked")
    in_terminal(["minisign", "-C", "-s", pair.secret], answers=[PASSWORD, PASSWORD])
    assert cli.main(trusting.site.command("--quiet", "--trust", pair.public)) == 0
    command = [sys.executable, "-m", "pxe_pack", "pin", str(trusting.site.output), str(trusting.fleet), "--url", URL]
    said = in_terminal([*command, "--sign", str(pair.secret)], answers=[PASSWORD])
    assert trusting.recorded["signed_by"] == pair.id
    assert PASSWORD not in said


PASSWORD = "correct horse"  # noqa: S105


def in_terminal(command: Sequence[str | Path], *, answers: Sequence[str]) -> str:
    """Run a command in a session with a terminal of its own, and type an answer at each prompt for a password."""
    child, terminal = pty.fork()
    if child == 0:
        os.execvp(command[0], [*map(str, command)])  # noqa: S606
    said = b""
    for answer in answers:
        seen = len(said)
        while b"assword" not in said[seen:] or not said.rstrip().endswith(b":"):
            said += os.read(terminal, 4096)
        time.sleep(0.1)  # the prompt comes before what was typed until then is thrown away
        os.write(terminal, f"{answer}\n".encode())
    with suppress(OSError):  # EIO: the program has ended
        while data := os.read(terminal, 4096):
            said += data
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, said.decode()
    return said.decode()


def test_a_configuration_that_nodes_would_refuse_is_not_pinned(pins: Pins) -> None:
    elsewhere = {"allowed_roots": ["/etc/x"], "artifacts": [{**ARTIFACT, "dest": "/etc/x/y"}]}
    for rest, reference in (
        ({"serial": 4}, "config-serial-lower"),
        ({"expires": PAST}, "config-expired"),
        ({"min_agent": "0.1"}, "agent-too-old"),
        ({"min_agent": "999.1"}, "agent-too-old"),
        (elsewhere, "dest-outside-packed"),
        ({"artifacts": [{"name": "m", "source": "m.bin", "dest": "/srv/m"}]}, "source-not-packed"),
        ({"artifacts": [{**ARTIFACT, "sha256": None}]}, "checksum-missing"),
        ({"nonsense": 1}, "unknown-key"),
    ):
        pins.write(**rest)
        assert f"error[{reference}]" in pins.refused(), rest


def test_a_serial_never_falls_below_the_one_pinned_before(trusting: Pins, keys: KeyPair) -> None:
    trusting.write(serial=9, expires=FUTURE)
    trusting.done("--sign", keys.secret)
    trusting.write(serial=8)
    assert "error[config-serial-lower]" in trusting.refused("--sign", keys.secret)
    trusting.write(serial=None)
    assert "error[config-serial-missing]" in trusting.refused("--sign", keys.secret)


def test_a_serial_never_falls_below_one_whose_pin_was_removed(pins: Pins) -> None:
    pins.write(serial=9)
    pins.done()
    assert pins.run("--remove") == 0
    pins.write(serial=6)
    assert "serial: 6`, but one pinned before had serial 9" in pins.refused()
    pins.write(serial=9)
    pins.done()


def test_a_file_that_cannot_be_named_or_served_is_refused(pins: Pins) -> None:
    content, pipe, latin = pins.fleet.read_bytes(), pins.site.folder / "pipe.yaml", pins.site.folder / "caf\udce9.yaml"
    os.mkfifo(pipe)
    blocked = pins.site.folder / "blocked.yaml"
    (pins.site.folder / "blocked.yaml.minisig").mkdir()
    for file in (latin, pins.site.folder / "two\nlines.yaml", blocked):
        file.write_bytes(content)
    before = pins.content()
    for file, message in (
        (latin, "is not UTF-8, or has characters that are not printable"),
        (pins.site.folder / "two\nlines.yaml", "is not UTF-8, or has characters that are not printable"),
        (pipe, "pipe.yaml is not a regular file"),
        (blocked, "blocked.yaml.minisig is not a regular file"),
        (pins.site.folder / "nowhere.yaml", "nowhere.yaml: No such file or directory"),
    ):
        assert pins.run(file, "--url", URL) == 2
        said = " ".join(pins.capsys.readouterr().err.split())
        assert "error[config-unreadable]" in said
        assert message in said
        assert "--agent-config" not in said
    assert pins.content() == before


def test_a_folder_whose_name_is_not_utf8_is_no_obstacle(pins: Pins) -> None:
    folder = pins.site.folder / "caf\udce9"
    folder.mkdir()
    pins.fleet.rename(folder / "fleet.yaml")
    for flags in ((), ("--json",)):
        assert pins.run(folder / "fleet.yaml", "--url", URL, *flags) == 0


def test_what_is_no_secret_key_signs_nothing(trusting: Pins, keys: KeyPair) -> None:
    for file in (keys.public, trusting.fleet):
        said = trusting.refused("--sign", file)
        assert "error[sign-key-unreadable]" in said
        assert "is not a minisign secret key" in said


def test_a_second_key_with_the_same_id_is_tried_too(pins: Pins, packs: Packs, tmp_path: Path) -> None:
    pair, other = key_pair(tmp_path, "site"), key_pair(tmp_path, "other")
    comment, text = pair.public.read_text().splitlines()
    mine, theirs = base64.b64decode(text), base64.b64decode(other.public.read_text().splitlines()[1])
    twin = tmp_path / "a.pub"  # before site.pub
    twin.write_text(f"{comment}\n{base64.b64encode(mine[:10] + theirs[10:]).decode()}\n")
    packs("--trust", twin, "--trust", pair.public)
    pins.done("--sign", pair.secret)
    assert pins.recorded["signed_by"] == pair.id


def test_a_layout_that_changes_while_it_is_pinned_is_left_alone(
    trusting: Pins, keys: KeyPair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    layout = trusting.site.output
    trusting.write(serial=9)
    newer = trusting.fleet.rename(trusting.site.folder / "newer.yaml")
    trusting.write(serial=9, parallel=2)
    real = shutil.which("minisign")
    for words in (
        ["pin", layout, newer, "--url", ELSEWHERE],
        ["relocate", layout, "--boot-url", "http://10.0.0.1/z.iso"],
        ["remove", layout],
    ):
        between = shlex.join([sys.executable, "-m", "pxe_pack", *map(str, words)])
        wrapper = tmp_path / "minisign"
        wrapper.write_text(f'#!/bin/sh\n[ "$1" != -S ] || {between} >&2 || exit 7\nexec {real} "$@"\n')
        wrapper.chmod(0o755)
        monkeypatch.setattr(tools, "SEARCH_PATH", f"{tmp_path}:{tools.SEARCH_PATH}")
        assert trusting.run(trusting.fleet, "--url", URL, "--sign", keys.secret) == 1
        said = " ".join(trusting.capsys.readouterr().err.split())
        assert "error[layout-changed]" in said
        assert "was changed meanwhile" in said
        trusting.check_whole()
        assert all(URL not in word for one in trusting.arguments() for word in one)


def test_of_two_that_change_a_layout_at_once_one_is_refused(pins: Pins) -> None:
    pin = ["pin", pins.site.output, pins.fleet, "--url"]
    for number, commands in enumerate(
        (
            [[*pin, URL], [*pin, ELSEWHERE]],
            [[*pin, f"{URL}?1"], ["relocate", pins.site.output, "--boot-url", "http://10.0.0.1/z.iso"]],
            [
                ["relocate", pins.site.output, "--boot-url", "http://10.0.0.1/y.iso"],
                ["relocate", pins.site.output, "--boot-url", "http://10.0.0.1/x.iso"],
            ],
        )
    ):
        with ExitStack() as stack:
            with locked(pins.site.output.parent):  # each reads the layout, and waits to change it
                runs = [
                    stack.enter_context(
                        subprocess.Popen(
                            [sys.executable, "-m", "pxe_pack", *map(str, words)],
                            stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE,
                            text=True,
                        )
                    )
                    for words in commands
                ]
                wait_until_locked_out(runs)
            said = [run.communicate()[1] for run in runs]
        assert sorted(run.returncode for run in runs) == [0, 1], (number, said)
        assert any("error[layout-changed]" in one for one in said), (number, said)
        pins.check_whole()
        assert len({tuple(one) for one in pins.arguments()}) == 1


def waits_for_a_lock(process: int) -> bool:
    """Whether it is blocked in flock(2) (proc(5), /proc/locks)."""
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if " -> " in line]
    return any(words[2] == "FLOCK" and words[5] == str(process) for words in waiting)


def wait_until_locked_out(runs: Sequence[subprocess.Popen[str]]) -> None:
    end = time.monotonic() + 60
    while not all(waits_for_a_lock(run.pid) for run in runs):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_urls_that_no_kernel_argument_can_carry_or_no_node_fetches_are_refused(pins: Pins) -> None:
    for url in (
        "fleet.yaml",
        "file:///srv/fleet.yaml",
        "nfs://10.0.0.1/fleet.yaml",
        "http://me:secret@10.0.0.1/fleet.yaml",
        "http://10.0.0.1/",
        "http://10.0.0.1/fleet yaml",
        "http://10.0.0.1/${mac}.yaml",
        "http://10.0.0.1/fleet.yaml#top",
        "http://10.0.0.1/a'b",
    ):
        said = pins.refused(url=url)
        assert "error[pin-url]" in said, url
        assert "secret" not in said


def test_a_signature_is_looked_for_before_the_query(trusting: Pins, keys: KeyPair) -> None:
    said = trusting.done("--sign", keys.secret, url="http://10.0.0.1/fleet.yaml?branch=main")
    assert "http://10.0.0.1/fleet.yaml.minisig" in said


def test_a_command_line_that_becomes_too_long_is_refused(pins: Pins) -> None:
    assert "error[command-line-too-long]" in pins.refused(url=f"http://10.0.0.1/{'x' * 2000}/fleet.yaml")


def test_an_argument_from_a_variable_that_comes_later_is_refused(pins: Pins) -> None:
    grub = pins.site.output / "boot/grub2/grub.cfg"
    text = grub.read_text().replace(" rd.live.image", " rd.live.image $more")
    grub.write_text(f'set more="pxe-fetch.config.sha256={"0" * 64} pxe-fetch.config=http://h/x"\n{text}')
    pins.done()
    grub.write_text(grub.read_text().replace(f"sha256={pins.digest}", f"sha256={pins.digest} -- $more"))
    assert "error[pin-overridden]" in pins.refused()


def test_relocating_repacking_and_removing_know_a_pin(pins: Pins, packs: Packs) -> None:
    pins.done()
    assert cli.main(["relocate", str(pins.site.output), "--boot-url", "http://10.9.9.9/liveos.iso"]) == 0
    assert all(f"pxe-fetch.config={URL}" in one for one in pins.arguments())
    assert pins.recorded["url"] == URL
    pinned = pins.site.folder / "pinned"
    pins.site.output.rename(pinned)
    pins.site.image = pinned
    packs()
    assert pins.arguments() == [[]] * len(pins.arguments())
    assert "pinned" not in pins.site.manifest()
    pins.done()
    assert cli.main(["remove", str(pins.site.output)]) == 0
    assert pins.arguments() == [[]] * len(pins.arguments())
    assert "pinned" not in pins.site.manifest()


def test_killed_at_any_time_the_layout_is_as_before_or_the_next_run_completes_it(pins: Pins) -> None:
    command = [sys.executable, "-m", "pxe_pack", "pin", str(pins.site.output), str(pins.fleet), "--url"]
    began = time.monotonic()
    subprocess.run([*command, ELSEWHERE], check=True, capture_output=True)
    whole = time.monotonic() - began
    for round_ in range(4):
        url = f"http://10.0.0.1/{round_}.yaml"
        with subprocess.Popen([*command, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as pin:
            time.sleep(whole * (0.6 + 0.1 * round_))
            pin.send_signal(signal.SIGKILL)
        pins.done(url=url)
        assert all(one[0] == f"pxe-fetch.config={url}" for one in pins.arguments())


def test_half_of_an_exchange_is_completed(pins: Pins) -> None:
    before = {name: (pins.site.output / name).read_bytes() for name in ("boot.ipxe", "manifest.json", "SHA256SUMS")}
    pins.done()
    after = pins.content()
    for name, content in before.items():  # as a run leaves them that is killed after its first rename
        (pins.site.output / name).write_bytes(content)
    pins.done()
    assert pins.content() == after


def test_what_makes_no_sense_on_the_command_line(pins: Pins) -> None:
    assert pins.run() == 2
    assert "no configuration is given" in pins.capsys.readouterr().err
    assert pins.run("--remove", "--url", URL) == 2
    assert pins.run(pins.fleet) == 2
    assert "no URL of the configuration is given" in pins.capsys.readouterr().err
    assert cli.main(["pin", str(pins.site.folder / "nowhere"), str(pins.fleet), "--url", URL]) == 2


def test_the_packed_configuration_is_a_start_for_one_by_url(pins: Pins, packs: Packs) -> None:
    (pins.site.folder / "m.bin").write_bytes(b"model")
    pins.site.rest = {"serial": 5, "artifacts": [{"name": "m", "source": "m.bin", "dest": "/srv/m"}]}
    packs("--inject", "updates")
    assert cli.main(["show", str(pins.site.output), "--config"]) == 0
    pins.fleet.write_text(pins.capsys.readouterr().out)
    assert "source" not in pins.fleet.read_text()
    assert hashlib.sha256(b"model").hexdigest() in pins.fleet.read_text()
    pins.done()
    assert cli.main(["show", str(pins.site.image), "--config"]) == 2
    assert "error[show-no-config]" in pins.capsys.readouterr().err


def test_the_file_that_was_packed_is_refused_with_the_way_to_its_urls(pins: Pins, packs: Packs) -> None:
    (pins.site.folder / "m.bin").write_bytes(b"model")
    artifacts = [{"name": "m", "source": "m.bin", "dest": "/srv/m"}]
    pins.site.rest = {"serial": 5, "artifacts": artifacts}
    packs()
    pins.write(artifacts=artifacts)
    said = pins.refused()
    assert "error[source-unresolved]: artifact m: `source: m.bin` is on the packing machine" in said
    assert "pxe-pack show DIR --config" in said
