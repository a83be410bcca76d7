"""What protects each link of a node's boot, and what an attacker on the network can still change.

The attacker answers DHCP, TFTP and http in the servers' place. A link is protected only if all that it hangs on is:
a digest in kernel arguments is worth as much as what protects those. docs/trust.md explains the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pxe_pack.checks.digests import unprotected
from pxe_pack.checks.subject import Subject
from pxe_pack.image.efi import EfiProgram, examined
from pxe_pack.layout.kernel_arguments import CONFIG, CONFIG_SHA256, ISO_SHA256
from pxe_pack.layout.layout import Layout, section_of
from pxe_pack.trust import signed_boot
from pxe_pack.trust.signing import fingerprint

_ALL = "anything"
_NOTHING = "nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A link of the chain, in the order of a boot."""

    name: str
    protection: str  # what protects it; empty if nothing does
    remains: str  # what an attacker on the network can still change


def chain(subject: Subject) -> list[Link]:
    """The links of a layout's boot; none for an image, which is not served yet."""
    if subject.layout is None or subject.menu.default is None:
        return []
    has_program = bool(signed_boot.programs(subject.layout))
    signed = has_program and _is_valid(subject.layout)
    entry = subject.menu.entries[subject.menu.default]
    links = [
        Link(
            name="DHCP",
            protection="",
            remains="which server and file a node is sent to; that it boots at all",
        ),
        *(_signed(subject.layout, valid=signed) if has_program else _by_grub(subject)),
    ]
    base = "the signed program" if signed else ""
    iso = base
    if subject.image.live:
        hooks = any(file.appended and file.appended.verifies_iso for _, file in subject.initrds(entry))
        verified = hooks and bool(entry.values(ISO_SHA256))
        iso = "its digest in the kernel arguments" if verified else ""
        links.append(_hangs_on(base, "ISO", iso))
        iso = iso if signed else ""
    links.append(_hangs_on(iso, "agent, packed configuration", "they are in the ISO or the initrd"))
    return [
        *links,
        *_configuration(subject, entry.agent_values(CONFIG), entry.agent_values(CONFIG_SHA256), agent=iso),
    ]


def _signed(layout: Layout, *, valid: bool) -> Iterator[Link]:
    by_shim = section_of(layout.facts, signed_boot.FACTS).get("chain") == signed_boot.SHIM
    if not valid:
        for name in ("boot program", "kernel arguments", "kernel", "initrd"):
            yield Link(name=name, protection="", remains=_ALL)
        return
    yield Link(
        name="boot program",
        protection="Secure Boot: the site's signature" + (", by shim" if by_shim else ""),
        remains="an older layout signed with the same key; another program that "
        + ("shim or the firmware trusts" if by_shim else "the firmware's db trusts"),
    )
    for name in ("kernel arguments", "kernel", "initrd"):
        yield Link(name=name, protection="in the signed program", remains=_NOTHING)


def _is_valid(layout: Layout) -> bool:
    """Whether each signed program is one: its signature is intact, and by the certificate in the manifest."""
    facts = section_of(layout.facts, signed_boot.FACTS)
    wanted = section_of(facts, "certificate").get("sha256")
    files = [layout.root / path for path in signed_boot.programs(layout)]
    return all(
        file.is_file()
        and any(
            one.intact and fingerprint(one.certificates[0]) == wanted
            for one in examined(file.name, file.read_bytes()).signatures
        )
        for file in files
    )


def _by_grub(subject: Subject) -> Iterator[Link]:
    loaders = [*subject.programs.loaders]
    kernels = [kernel.program for kernel in subject.programs.kernels.values()]
    for name, programs in (("shim, GRUB", loaders), ("kernel", kernels)):
        known = _are_signed(programs)
        yield Link(
            name=name,
            protection="Secure Boot, if it is on: the distribution's signature" if known else "",
            remains="another version that is signed too" if known else _ALL,
        )
        if name != "kernel":
            yield Link(name="grub.cfg, kernel arguments", protection="", remains=_ALL)
    yield Link(name="initrd", protection="", remains=_ALL)


def _are_signed(programs: Sequence[EfiProgram]) -> bool:
    return bool(programs) and all(any(one.intact for one in program.signatures) for program in programs)


def _hangs_on(base: str, name: str, protection: str) -> Link:
    """A link with a `protection` of its own (empty if it has none), which hangs on a `base` (empty: nothing)."""
    if not protection:
        return Link(name=name, protection="", remains=_ALL)
    if not base:
        return Link(name=name, protection="", remains=f"{_ALL}: {protection}, which nothing protects")
    return Link(name=name, protection=protection, remains=_NOTHING)


def _configuration(subject: Subject, urls: Sequence[str], digests: Sequence[str], *, agent: str) -> Iterator[Link]:
    """The links after the `agent`, which hang on it: it is what compares digests and verifies signatures."""
    trust = bool(subject.layout and subject.layout.facts.get("trust"))
    safe = bool(agent)
    if urls and digests:
        yield _hangs_on(agent, "configuration by URL", "its digest in the kernel arguments")
    elif urls and trust:
        old = (
            "an older one that has not expired, where no node keeps the highest serial; "
            "one for other nodes, signed with the same key"
        )
        link = _hangs_on(agent, "configuration by URL", "the signature by a key in the image")
        yield Link(name=link.name, protection=link.protection, remains=old if agent else link.remains)
    elif urls:
        yield _hangs_on(agent, "configuration by URL", "https, for the URL in the kernel arguments")
    yield _artifacts(subject, "the configuration" if safe else "")
    report = subject.config.report.url if subject.config else None
    if report:
        encrypted = report.startswith("https:")
        yield Link(
            name="report",
            protection="https, if the image can be trusted" if encrypted else "",
            remains=_NOTHING if encrypted and safe else "it can be read, dropped or forged",
        )


def _artifacts(subject: Subject, base: str) -> Link:
    link = _hangs_on(base, "artifacts", "their digests in the configuration")
    remains = link.remains
    if base and subject.config is None:  # it comes by URL, and is not here
        remains = f"{_NOTHING}; {_ALL}, if the list of a `sha256_url` comes by http"
    elif base and subject.config:
        names = ", ".join(unprotected(subject.config))
        remains = f"{_ALL} in {names}: the list with the digest comes unprotected" if names else remains
    return Link(name=link.name, protection=link.protection, remains=remains)


def lines(links: Sequence[Link]) -> Iterator[str]:
    """The table as text."""
    rows = [("link", "protected by", "what an attacker on the network can still change")]
    rows += [(one.name, one.protection or "nothing", one.remains) for one in links]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, protection, remains in rows:
        yield f"{name:{widths[0]}}  {protection:{widths[1]}}  {remains}"


def document(links: Sequence[Link]) -> list[dict[str, object]]:
    """The table as JSON values (docs/json.md)."""
    return [{"link": one.name, "protection": one.protection or None, "remains": one.remains} for one in links]
