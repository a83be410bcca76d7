"""A GRUB configuration made to take all memory or all time is refused, with the limit that it exceeds."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from packing.site import Site, files_of, make_iso

ENTRY = "menuentry a {\n linux /boot/vmlinuz root=live:LABEL=CDROM rd.live.image\n initrd /boot/initrd.img\n}\n"
SECONDS, MEMORY = 20, 1 << 29  # CPU time and bytes of one command

HOSTILE: dict[str, tuple[str, dict[str, str], str]] = {
    # what: grub.cfg, other files, and what is said
    "bytes": ("#" * (1 << 20) + "\n" + ENTRY, {}, "bytes, which is too large for a GRUB configuration"),
    "bytes of included files": (
        ENTRY + "source /boot/a\n" * 3,
        {"a": "#" * 500_000 + "\ntrue\n"},
        "more than 1,048,576 bytes, with the files that it includes",
    ),
    "words": (ENTRY + "a " * 250_000, {}, "more than 200,000 words, separators and gaps"),
    "depth": ("submenu x { " * 5000 + ENTRY + "\n}" * 5000, {}, "more than 64 blocks, conditions or included files"),
    "depth of conditions": ("if true; then\n" * 5000 + ENTRY + "fi\n" * 5000, {}, "more than 64 blocks"),
    "included files, each by two": (
        ENTRY + "source /boot/f0\n",
        {f"f{n}": f"source /boot/f{n + 1}\nsource /boot/f{n + 1}\n" for n in range(30)} | {"f30": "true\n"},
        "more than 64 included files",
    ),
    "an entry that includes itself": (
        ENTRY + "source /boot/f\n",
        {"f": "submenu x {\n source /boot/f\n}\n"},
        "more than 64 included files",
    ),
    "entries": (ENTRY * 300, {}, "more than 256 menu entries"),
    "entries by a loop": (
        "for a in 1 2 3 4 5 6 7; do\nfor b in 1 2 3 4 5 6 7; do\nfor c in 1 2 3 4 5 6 7; do\n"
        + ENTRY
        + "done\ndone\ndone\n",
        {},
        "more than 256 menu entries",
    ),
    "a loop without end": (ENTRY + "while true; do a=b; done\n", {}, "more than 50,000 commands to run"),
    "a function that calls itself": ("function f {\n f\n}\nf\n" + ENTRY, {}, "more than 64 blocks"),
    "submenus by a function": ("function f {\n submenu x {\n f\n }\n}\nf\n" + ENTRY, {}, "more than 64 blocks"),
    "a variable that doubles": ("a=xxxxxxxx\n" + 'a="$a$a"\n' * 40 + ENTRY, {}, "more than 16,384 characters"),
    "a variable that doubles in a loop": (
        "a=x\nfor n in " + "1 " * 60 + '; do a="$a$a"; done\n' + ENTRY,
        {},
        "more than 16,384 characters",
    ),
    "a long command in a loop": (
        f"a={'x' * 8000}\nwhile true; do b=$a; done\n" + ENTRY,
        {},
        "more than 8,388,608 characters in the commands that it runs",
    ),
}  # fmt: skip

HARMLESS = {
    "open braces": "a=" + "${" * 200_000 + "\n" + ENTRY,
    "dollars": 'a="' + "$" * 400_000 + '"\n' + ENTRY,
    "quotes": "a=" + "'" * 400_000 + "\n" + ENTRY,
    "backslashes": "a=" + "\\\\" * 200_000 + "\n" + ENTRY,
    "an open quote at the end": ENTRY + "a" * 500_000 + '"',
}


def cpu_seconds() -> float:
    """What all commands so far have used: the clock would count what else the machine does (getrusage(2))."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show(site: Site, text: str, files: dict[str, str]) -> tuple[int, str]:
    """The exit code of `show` for an image with this configuration, and what it says on stderr."""
    medium: dict[str, str | bytes] = {**files_of(site.image), "boot/grub2/grub.cfg": text}
    del medium["boot/grub2/grub-pxe.cfg"]
    image = make_iso(site.folder / "hostile.iso", medium | {f"boot/{name}": data for name, data in files.items()})
    command = [sys.executable, "-m", "pxe_pack", "check", "--offline", str(image)]

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    before = cpu_seconds()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, preexec_fn=limited)
    assert cpu_seconds() - before < SECONDS
    assert "Traceback" not in done.stderr
    return done.returncode, " ".join((done.stderr + done.stdout).split())


@pytest.mark.parametrize("what", HOSTILE)
def test_what_costs_too_much_is_refused_by_name(site: Site, what: str) -> None:
    text, files, sentence = HOSTILE[what]
    code, said = show(site, text, files)
    assert code in (2, 3), said
    assert sentence in said, said[:1000]


@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_only_odd_takes_no_time(site: Site, what: str) -> None:
    show(site, HARMLESS[what], {})
