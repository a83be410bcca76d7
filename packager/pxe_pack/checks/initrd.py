"""Checks that a bootstrap initrd can fetch and mount a LiveOS: dracut modules, curl, certificates, network.

Sources: dracut, modules.d/90livenet, 90dmsquash-live, 45url-lib, 95nfs; dracut-ng issue 719; rhboot/grub2, pull
requests 96 and 102 (GRUB needs contiguous pages for all initrds, once below 1 GiB, later below 4 GiB).
"""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image.ca_bundles import OF_CURL, flaw, present
from pxe_pack.image.initrd.reader import InitrdFacts

_LARGE = 200_000_000  # bytes; failures are reported from some hundred MB on
_PAYLOAD = 8 << 20  # bytes; the agent as it is appended to an initrd: 7.1 MB
_NO_VERIFICATION = "rd.noverifyssl"  # dracut.cmdline(7)


def initrds(subject: Subject) -> Iterator[Problem]:
    """What each initrd is missing to boot a LiveOS from a URL."""
    yield from _sizes(subject)
    if not subject.image.live:
        return
    for name, facts in subject.image.initrds.items():
        if not facts.readable:
            yield Problem(
                reference="initrd-unread",
                message=f"the initrd {name} could not be checked: {facts.unread_reason}",
                hint="compress it with gzip, xz or zstd; with dracut's squash module, use squashfs",
                severity="note",
            )
            continue
        yield from _live(name, facts, subject)
        yield from _network(name, facts)
        yield from _certificates(name, facts, subject)


def _sizes(subject: Subject) -> Iterator[Problem]:
    """A note for each entry whose initrds are large."""
    added = _PAYLOAD if subject.injector == "initrd" else 0
    for entry in subject.menu.entries:
        found = [subject.image.media.find(subject.on_medium(path)) for path in entry.initrds]
        size = sum(one.size for one in found if one) + added
        if size >= _LARGE:
            yield Problem(
                reference="initrd-large",
                message=f"GRUB loads {size / 1_000_000:,.0f} MB of initrds for the entry {entry.title!r} into "
                "one piece of memory, which not all firmware has: then a node stops with `out of memory`",
                hint="test it on each kind of machine; a small initrd that downloads an ISO does not need it",
                severity="note",
            )
            return


def _live(name: str, facts: InitrdFacts, subject: Subject) -> Iterator[Problem]:
    lacking = [what for what, has in (("livenet", facts.livenet), ("dmsquash-live", facts.dmsquash_live)) if not has]
    if lacking:
        yield Problem(
            reference="initrd-not-live",
            message=f"the initrd {name} has no {' and no '.join(lacking)}: it cannot boot a LiveOS from a URL",
            hint=f"rebuild it with dracut --add '{' '.join(lacking)}'",
        )
        return
    if subject.boot_url.startswith("nfs:"):
        parts = [what for what, has in (("url-lib.sh", facts.url_lib), ("nfs-lib.sh", facts.nfs)) if not has]
        if parts:
            yield Problem(
                reference="initrd-no-nfs",
                message=f"the initrd {name} has no {' and no '.join(parts)}: it cannot mount {subject.boot_url}",
                hint="install nfs-utils (nfs-common) in the image and rebuild the initrd with dracut --add nfs",
            )
        return
    parts = [what for what, has in (("url-lib.sh", facts.url_lib), ("curl", facts.curl)) if not has]
    if parts:
        yield Problem(
            reference="initrd-no-curl",
            message=f"the initrd {name} has no {' and no '.join(parts)}: it cannot fetch the ISO",
            hint="install curl in the image and rebuild the initrd with dracut --add url-lib",
        )
    elif facts.ignores_curl_errors and not subject.verifies_iso:
        yield Problem(
            reference="initrd-takes-half",
            message=f"the initrd {name} accepts half an ISO: if the connection breaks, it continues with what curl has "
            "fetched, and the node does not boot",
            hint="let nodes verify the ISO (--verify-iso); or in dracut's 45url-lib/url-lib.sh, function "
            "curl_fetch_url, add `|| return $?` after the `)` that follows curl, and rebuild the initrd; until then, "
            "restart nodes that stop",
            severity="warning",
        )


def _network(name: str, facts: InitrdFacts) -> Iterator[Problem]:
    if not facts.modules or not facts.livenet:  # unknown, or reported already
        return
    if not facts.network:
        yield Problem(
            reference="initrd-no-network",
            message=f"the initrd {name} has no dracut module that configures the network",
            hint="rebuild it with dracut --add network-legacy, or network-manager",
        )
    elif facts.network == ("systemd-networkd",):
        yield Problem(
            reference="initrd-networkd",
            message=f"the initrd {name} configures the network only with systemd-networkd; some dracut releases "
            "(such as 059) then never start livenet",
            hint="rebuild it with dracut --add network-legacy, or network-manager; or test it with pxe-pack boot",
            severity="warning",
        )


def _certificates(name: str, facts: InitrdFacts, subject: Subject) -> Iterator[Problem]:
    lax = all(_NO_VERIFICATION in entry.arguments for entry in subject.menu.entries)
    if not subject.boot_url.startswith("https:") or facts.ca_bundle or lax:
        return
    flawed = [f"{path} {flaw(facts.tree, path)}" for path in present(facts.tree, OF_CURL)]
    yield Problem(
        reference="initrd-no-certificates",
        message=f"the initrd {name} has no CA certificates, but {subject.boot_url} is fetched by https"
        + (f": {', '.join(flawed)}" if flawed else ""),
        hint="add the CA bundle with dracut --install, or serve the ISO by http",
    )
