"""Nodes that boot over PXE from packed layouts: what they fetch, what they say, what is in their journal."""

from __future__ import annotations

import hashlib

from boot.conftest import IsoCache
from boot.nodes import Booted, Site
from boot.sites import CONFIGS, CORRUPT, ELSEWHERE_URL, LARGE, NOTE, OTHER, PLAIN, SMALL, WOBBLY
from fakes.server import Server
from pxe_fetch.contract.commands import Exit
from pxe_fetch.contract.paths import MessageId


def test_rewritten_image_boots_and_gets_what_can_be_had(troubled: Booted) -> None:
    assert troubled.node["exit_code"] == Exit.DEGRADED, troubled.shown
    assert troubled.code == 1
    assert troubled.has(WOBBLY)
    assert troubled.has(NOTE)
    assert CORRUPT.dest not in troubled.files
    assert not [path for path in troubled.files if path.startswith(CORRUPT.dest)], "a part of it was left behind"


def test_node_says_what_was_wrong_with_the_artifact_that_it_has_not(troubled: Booted) -> None:
    corrupt = troubled.artifacts["corrupt"]
    assert (corrupt["phase"], corrupt["cause"], corrupt["required"]) == ("failed", "integrity", False)
    assert corrupt["error"]


def test_node_goes_on_where_the_server_broke_off(troubled: Booted, server: Server) -> None:
    assert troubled.artifacts["wobbly"]["phase"] == "placed"
    first, second, cut, rest, *more = server.asked_for("/wobbly.bin")
    assert [asked.status for asked in (first, second, cut, rest)] == [503, 503, 200, 206]
    assert rest.range is not None
    # What was under way when the server broke off may never arrive, through the emulated network of a busy machine.
    assert 0 < int(rest.range.removeprefix("bytes=").removesuffix("-")) <= cut.sent
    assert not more
    ids = [entry.get("MESSAGE_ID") for entry in troubled.journal if entry.get("PXE_FETCH_ARTIFACT") == "wobbly"]
    # Of the cut; a 503 while the server serves another artifact is taken for a limit, and costs no attempt.
    assert 1 <= ids.count(MessageId.RETRYING) <= 3
    assert MessageId.RESUMED in ids


def test_missing_optional_artifact_is_no_failed_unit(troubled: Booted) -> None:
    assert troubled.inspected["failed_units"] == []
    assert troubled.inspected["units"]["pxe-fetch.service"]["ActiveState"] == "active"
    assert troubled.inspected["units"]["pxe-fetch.target"]["ActiveState"] == "active"


def test_image_with_the_payload_beside_it_boots_and_gets_everything(booted: Booted) -> None:
    assert booted.code == 0, booted.shown
    assert booted.node["exit_code"] == Exit.DONE
    phases = {name: one["phase"] for name, one in booted.artifacts.items()}
    assert phases == dict.fromkeys(("plain", "large", "small", "configs"), "placed") | {"licence": "skipped"}
    assert booted.has(PLAIN)
    assert booted.has(LARGE)
    assert booted.has(SMALL)


def test_the_sandbox_leaves_the_console_for_the_line_of_the_outcome(booted: Booted) -> None:
    assert "done: 4 artifacts in place" in (booted.result["console"] or ""), booted.shown


def test_artifacts_of_the_layout_come_from_the_url_they_were_packed_with(booted: Booted) -> None:
    assert booted.artifacts["large"]["url"] == "http://10.0.1.7:8080/files/large%20file.bin"
    assert "http://10.0.1.7:8080/images/liveos.iso" in [served["url"] for served in booted.result["served"]]


def test_files_of_the_images_own_are_served_beside_its_iso(booted: Booted) -> None:
    assert booted.has(CONFIGS)


def test_chunks_that_the_packager_listed_are_what_a_node_verifies_by(booted: Booted) -> None:
    (verified,) = [
        entry
        for entry in booted.journal
        if (entry.get("MESSAGE_ID"), entry.get("PXE_FETCH_ARTIFACT")) == (MessageId.VERIFIED, "large")
    ]
    assert "sha256 of each of its 8 chunks" in verified["MESSAGE"]
    served = {one["url"]: one for one in booted.result["served"]}
    assert served["http://10.0.1.7:8080/files/large%20file.bin.chunks"]["requests"] == 1
    assert "http://10.0.1.7:8080/files/large%20file.bin" in served  # by one stream where the others are busy
    assert booted.artifacts["large"]["bytes_received"] == len(LARGE.body)


def test_unit_is_active_and_the_target_reached(booted: Booted) -> None:
    units = booted.inspected["units"]
    assert (units["pxe-fetch.service"]["ActiveState"], units["pxe-fetch.service"]["Result"]) == ("active", "success")
    assert units["pxe-fetch.target"]["ActiveState"] == "active"
    assert booted.inspected["failed_units"] == []


def test_journal_has_the_fields_that_machines_look_for(booted: Booted) -> None:
    journal = booted.journal
    assert journal[0]["MESSAGE_ID"] == MessageId.CONFIG_FOUND
    assert journal[0]["PXE_FETCH_URL"] == "/etc/pxe-fetch/fetch.yaml"
    assert journal[-1]["MESSAGE_ID"] == MessageId.DONE
    (placed,) = [
        entry
        for entry in journal
        if (entry.get("MESSAGE_ID"), entry.get("PXE_FETCH_ARTIFACT")) == (MessageId.PLACED, "small")
    ]
    assert placed["PXE_FETCH_SHA256"] == SMALL.sha256
    assert placed["PXE_FETCH_BYTES"] == str(len(SMALL.body))
    assert placed["PXE_FETCH_PHASE"] == "placed"
    assert placed["PXE_FETCH_URL"].endswith("/klein.conf")
    runs = {entry["PXE_FETCH_RUN"] for entry in journal}
    assert len(runs) == 1
    assert all(entry["_SYSTEMD_UNIT"] == "pxe-fetch.service" for entry in journal)


def test_state_on_the_node_is_what_it_reported(booted: Booted) -> None:
    state = booted.inspected["state"]
    assert (state["phase"], state["exit_code"]) == ("done", 0)
    assert {one["name"]: one["sha256"] for one in state["artifacts"]} == {
        name: one["sha256"] for name, one in booted.artifacts.items()
    }


def test_node_booted_by_ipxe_uses_the_signed_configuration_that_is_pinned(pinned: Site) -> None:
    booted = pinned.boot(via="ipxe", serve=pinned.folder / "elsewhere.yaml")
    assert booted.code == 0, booted.shown
    served = [one["url"] for one in booted.result["served"]]
    assert served[0] == "http://10.0.1.7:8080/boot.ipxe"
    assert [one for one in served if one.startswith("http://10.0.1.7:8080/boot/vmlinuz")]
    assert not [one for one in served if one.endswith(".efi")]
    assert {ELSEWHERE_URL, f"{ELSEWHERE_URL}.minisig"} <= {*served}
    assert list(booted.artifacts) == ["other"]
    assert booted.has(OTHER)
    assert PLAIN.dest not in booted.files
    found = booted.journal[0]
    sha256 = hashlib.sha256((pinned.folder / "elsewhere.yaml").read_bytes()).hexdigest()
    assert (found["MESSAGE_ID"], found["PXE_FETCH_URL"], found["PXE_FETCH_SHA256"]) == (
        *(MessageId.CONFIG_FOUND, ELSEWHERE_URL),
        sha256,
    )
    assert "signed by site.pub" in found["MESSAGE"]


def test_replayed_configuration_with_a_valid_signature_is_refused(behind_a_cache: Booted) -> None:
    booted = behind_a_cache
    assert booted.code == 1
    assert booted.node["exit_code"] == Exit.REFUSED, booted.shown
    assert booted.artifacts == {}
    assert not {PLAIN.dest, LARGE.dest, SMALL.dest, OTHER.dest} & set(booted.files)
    assert not [path for path in booted.files if path.startswith("/srv/")]
    assert booted.inspected["failed_units"] == ["pxe-fetch.service"]
    assert booted.inspected["units"]["pxe-fetch.target"]["ActiveState"] == "inactive"
    (refused,) = [entry for entry in booted.journal if entry.get("MESSAGE_ID") == MessageId.CONFIG_REFUSED]
    assert "has the serial 1" in refused["MESSAGE"]


def test_iso_comes_through_the_cache_that_the_kernel_arguments_name(
    behind_a_cache: Booted, iso_cache: IsoCache
) -> None:
    urls = [one["url"] for one in behind_a_cache.result["served"]]
    assert not [url for url in urls if url.endswith(".iso")], "it came past the cache"
    (asked,) = [line for line in iso_cache.cache.requests() if "liveos.iso" in line]
    assert asked.startswith('GET /images/liveos.iso "-" 200 '), asked
    parts = [line for line in iso_cache.origin.asked() if line[3] == "/images/liveos.iso"]
    assert {line[5] for line in parts} == {"206"}
    assert sum(int(line[6]) for line in parts) == iso_cache.size
