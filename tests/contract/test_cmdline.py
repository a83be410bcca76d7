"""The kernel command line as the kernel itself reads it."""

from __future__ import annotations

import pytest

from pxe_fetch.contract import facts
from pxe_fetch.contract.problem import ProblemError

SHA256 = "ab" * 32


def test_reads_the_agents_own_arguments_among_others() -> None:
    found = facts.parse(
        "BOOT_IMAGE=/boot/vmlinuz root=live:http://h/x.iso ro quiet pxe-fetch.config=http://h/f.yaml?a=b "
        f"pxe-fetch.config.sha256={SHA256.upper()} pxe-fetch.base_url=http://m/ pxe-fetch.deadline=30m pxe-fetch.debug "
        f"pxe-fetch.report=http://h/r pxe-fetch.iso.sha256={SHA256}\n"
    )
    assert (found.config, found.config_sha256) == ("http://h/f.yaml?a=b", SHA256)
    assert (found.base_url, found.deadline, found.report, found.debug) == ("http://m/", 1800.0, "http://h/r", True)
    assert found.others == {"BOOT_IMAGE": "/boot/vmlinuz", "root": "live:http://h/x.iso", "ro": "", "quiet": ""}


@pytest.mark.parametrize("word", ["pxe-fetch=off", "pxe_fetch=off", "pxe-fetch=on pxe_fetch=0", "pxe-fetch=no"])
def test_off_is_off(word: str) -> None:
    assert facts.parse(f"quiet {word} ro").off


def test_the_last_of_a_name_wins_and_dashes_are_underscores() -> None:
    found = facts.parse("my-role=a my_role=b pxe-fetch.base_url=http://a/ pxe_fetch.base-url=http://b/")
    assert found.others == {"my_role": "b"}
    assert found.base_url == "http://b/"


def test_quotes_keep_blanks_together() -> None:
    found = facts.parse('site="rack 1" "note=a b" dyndbg="file a.c +p; file b.c +p" x=1')
    assert found.others == {"site": "rack 1", "note": "a b", "dyndbg": "file a.c +p; file b.c +p", "x": "1"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pxe-fetch.confg=http://h/f", "unknown kernel argument pxe-fetch.confg"),
        ("pxe-fetch.deadline=soon", "pxe-fetch.deadline=soon"),
        ("pxe-fetch.config=http://h/f pxe-fetch.config.sha256=beef", "not a SHA-256 digest"),
        (f"pxe-fetch.config.sha256={SHA256}", "without pxe-fetch.config"),
        ("pxe-fetch=maybe", "neither on nor off"),
    ],
)
def test_a_mistake_is_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ProblemError, match=said.replace(".", r"\.")):
        facts.parse(text)
