"""One boot that shows what an artifact can ask for, with a unit that is restarted and a server that is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from boot import provisions
from boot.nodes import Booted, Site
from boot.provisions import (
    CHOSEN,
    CHUNK,
    GREETING,
    KILLED_AT,
    LATER,
    MODEL,
    PERSONAL,
    SHARED,
    SLOW,
    STATUS_CODE,
    STOPPED_AT,
    WORDS,
)
from boot.sites import LICENCE, PLAIN
from boot.trouble import killed_once
from fakes.exchange import Asked
from fakes.nginx import Nginx, nginx
from pxe_fetch.contract.commands import Exit
from pxe_fetch.contract.paths import MessageId


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The boot, and what its servers saw of it."""

    booted: Booted
    asked: list[Asked]  # of the site's server, during the boot
    slowly: list[list[str]]  # nginx's log of the file whose server was killed
    wrong: list[str]  # the path that the one wrong byte came by
    killed: list[int]  # bytes that the node had of nginx's last answer when that was killed

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    @property
    def runs(self) -> list[str]:
        """The runs' ids, in order."""
        return list(dict.fromkeys(entry["PXE_FETCH_RUN"] for entry in self.booted.journal))


@pytest.fixture(scope="module")
def slowly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    folder = tmp_path_factory.mktemp("slowly")
    (folder / "root").mkdir()
    (folder / "root/slow.bin").write_bytes(SLOW.body)
    with nginx(folder / "nginx", root=folder / "root") as running:
        yield running


@pytest.fixture(scope="module")
def shown(sound: Site, slowly: Nginx) -> Shown:
    """The node of the layout where all is well, with another configuration and a secret from its firmware."""
    config, wrong = provisions.serve(sound, slowly=slowly)
    credentials = {
        "pxe-fetch.config": config.encode(),
        "pxe-fetch.site-token": f"Authorization: {provisions.TOKEN}\n".encode(),
    }
    before = len(sound.server.asked)
    with killed_once(slowly, path="/held/slow.bin", after=1, taken=KILLED_AT) as killed:
        booted = sound.boot(append=f"role={provisions.ROLE}", credentials=credentials)
    asked = [one for one in slowly.asked() if one[3] == "/held/slow.bin"]
    return Shown(booted=booted, asked=sound.server.asked[before:], slowly=asked, wrong=wrong, killed=killed)


def test_node_is_done_in_the_end_and_says_so_everywhere(shown: Shown) -> None:
    assert shown.booted.code == 0, shown.booted.shown
    assert shown.booted.node["exit_code"] == Exit.DONE
    assert shown.booted.inspected["failed_units"] == []
    assert shown.booted.inspected["units"]["pxe-fetch.target"]["ActiveState"] == "active"
    assert shown.booted.has(STATUS_CODE), "`pxe-fetch status --wait` has the run's exit code"
    (told,) = [asked.body.decode() for asked in shown.asked if asked.path == "/status"]
    assert told.startswith("done: ")
    assert "(credential)" in told
    for name in ("personal", "licence", "model", "words", "unit", "tree", "shared", "slow"):
        assert f"\n{name} " in told


def test_configuration_comes_from_the_firmware_before_the_images(shown: Shown) -> None:
    found = shown.booted.journal[0]
    assert found["MESSAGE_ID"] == MessageId.CONFIG_FOUND
    assert found["PXE_FETCH_URL"].endswith("/pxe-fetch.config")
    assert "/etc/pxe-fetch/fetch.yaml is ignored" in found["MESSAGE"]
    assert PLAIN.dest not in shown.booted.files


def test_secret_of_the_firmware_goes_to_its_server_and_nowhere_else(shown: Shown) -> None:
    assert shown.booted.has(LICENCE)
    sent = {asked.path for asked in shown.asked if asked.fields.get("authorization") == provisions.TOKEN}
    assert sent == {"/licence.txt"}
    told = json.dumps([shown.booted.inspected, shown.booted.result, shown.booted.shown])
    word = provisions.TOKEN.split()[1]
    assert word not in told
    assert word not in Path(shown.booted.result["serial_log"]).read_text(errors="replace")


def test_artifacts_for_other_nodes_are_left_out(shown: Shown) -> None:
    assert shown.booted.has(CHOSEN)
    assert shown.booted.artifacts["other-driver"]["phase"] == "skipped"
    assert "/other-driver.bin" not in shown.paths()


def test_facts_and_kernel_arguments_name_urls_and_places(shown: Shown) -> None:
    assert shown.booted.has(PERSONAL)
    assert f"/nodes/x86_64/{provisions.MAC}.conf" in shown.paths()


def test_wrong_chunk_alone_is_fetched_again_and_elsewhere(shown: Shown) -> None:
    assert shown.booted.has(MODEL)
    (path,) = shown.wrong
    (wrong,) = shown.booted.said("model", MessageId.CHUNK_WRONG)
    (right,) = shown.booted.said("model", MessageId.CHUNK_MENDED)
    index = provisions.WRONG // CHUNK
    assert f"chunk {index} " in wrong["MESSAGE"]
    assert f"chunk {index} " in right["MESSAGE"]
    assert wrong["PXE_FETCH_URL"].endswith(path)
    (other,) = {"/one/model.bin", "/other/model.bin"} - {path}
    assert right["PXE_FETCH_URL"].endswith(other)
    # From its beginning on, alone or with those behind it that the answer with the wrong byte is no longer read for.
    again = [asked for asked in shown.asked if (asked.range or "").startswith(f"bytes={index * CHUNK}-")]
    assert [(asked.path, asked.status) for asked in again] == [(other, 206)]
    assert "/one/model.bin.chunks" in shown.paths()


def test_archives_and_compressed_files_are_unpacked(shown: Shown) -> None:
    assert shown.booted.has(WORDS)
    assert shown.booted.files["/srv/app/bin/prove"]["mode"] == "755"
    assert shown.booted.files["/srv/app/share/greeting"]["sha256"] == GREETING.sha256


def test_unit_of_an_artifact_finds_it_in_place(shown: Shown) -> None:
    assert shown.booted.has(GREETING)
    assert shown.paths().count("/tree.tar.gz") == 1


def test_what_is_mounted_while_the_agent_runs_is_there_in_its_sandbox(shown: Shown) -> None:
    assert shown.booted.has(SHARED)
    (placed,) = shown.booted.said("shared", MessageId.PLACED)
    assert placed["PXE_FETCH_URL"] == f"file:///mnt/share/{provisions.ROLE}-{provisions.MAC}.conf"


def test_unit_that_is_ordered_after_the_target_waits_for_everything(shown: Shown) -> None:
    assert shown.booted.has(LATER), "it was asked for long before the last artifact had come"


def test_state_and_journal_say_what_became_of_each_unit(shown: Shown) -> None:
    units = {one["name"]: one for one in shown.booted.node["units"]}
    assert {name: one["result"] for name, one in units.items()} == {
        "mnt-share.mount": "already-active",  # since the first run
        "tell.service": "queued",  # it is ordered after the target
        "prove.service": "starting",  # it waits for this run
        "absent.service": "not-found",
    }
    why = "Failed to start absent.service: Unit absent.service not found."
    assert units["absent.service"]["message"] == why
    told = shown.booted.said("tree", MessageId.UNIT)
    assert {entry["PXE_FETCH_UNIT"]: entry["PXE_FETCH_RESULT"] for entry in told}["absent.service"] == "not-found"
    assert str(shown.booted.node["message"]).endswith(f"; absent.service could not be started: {why.removesuffix('.')}")


def test_restarted_unit_keeps_what_is_right_and_resumes_the_rest(shown: Shown) -> None:
    first, second = shown.runs
    ends = {entry["PXE_FETCH_RUN"]: entry for entry in shown.booted.journal if "PXE_FETCH_EXIT_CODE" in entry}
    assert "SIGTERM" in ends[first]["MESSAGE"]
    assert ends[first]["PXE_FETCH_EXIT_CODE"] == str(int(Exit.DEADLINE))
    assert ends[second]["PXE_FETCH_EXIT_CODE"] == "0"
    kept = {name for name, one in shown.booted.artifacts.items() if one["phase"] == "kept"}
    assert kept == {"personal", "driver", "licence", "mount", "model", "words", "unit", "teller", "tree", "shared"}
    resumed = shown.booted.said("slow", MessageId.RESUMED)[0]
    assert resumed["PXE_FETCH_RUN"] == second
    assert int(resumed["PXE_FETCH_BYTES"]) >= STOPPED_AT


def test_download_goes_on_where_a_killed_server_left_it(shown: Shown) -> None:
    assert shown.booted.has(SLOW)
    (taken,) = shown.killed
    of_unit, of_server = (int(entry["PXE_FETCH_BYTES"]) for entry in shown.booted.said("slow", MessageId.RESUMED))
    # The answer that was cut off by the kill is in no log; the one before it and the one after it are.
    (_, _, method, _, asked_for, status, _), (*_, rest, partial, sent) = shown.slowly
    assert (method, asked_for, status) == ("GET", '"-"', "200")
    assert (rest, partial, sent) == (f'"bytes={of_server}-"', "206", str(len(SLOW.body) - of_server))
    assert of_server >= of_unit + taken - 1024  # but for the answer's header
    assert shown.booted.said("slow", MessageId.RETRYING)
    assert shown.booted.artifacts["slow"]["bytes_received"] == len(SLOW.body) - of_unit
