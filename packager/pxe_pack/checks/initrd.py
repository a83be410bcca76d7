"""Checks that a bootstrap initrd can fetch and mount a LiveOS: dracut modules, curl, certificates, network.

Source: dracut, modules.d/90livenet, 90dmsquash-live, 45url-lib; dracut-ng issue 719.
"""

from __future__ import annotations

from collections.abc import Iterator

from pxe_fetch.contract.problem import Problem
from pxe_pack.checks.subject import Subject
from pxe_pack.image.initrd.reader import InitrdFacts

_CURL_SCHEMES = ("http:", "https:", "ftp:", "tftp:")
_NO_VERIFICATION = "rd.noverifyssl"  # dracut.cmdline(7)


def initrds(subject: Subject) -> Iterator[Problem]:
    """What each initrd is missing to boot a LiveOS from a URL."""
    if not subject.image.live:
        return
    for name, facts in subject.image.initrds.items():
        if not facts.readable:
            yield Problem(
                reference="initrd-unread",
                message=f"the initrd {name} is compressed with {facts.compression}, so it could not be checked",
                hint="compress it with gzip, xz or zstd",
                severity="note",
            )
            continue
        yield from _live(name, facts)
        yield from _network(name, facts)
        yield from _certificates(name, facts, subject)


def _live(name: str, facts: InitrdFacts) -> Iterator[Problem]:
    lacking = [what for what, has in (("livenet", facts.livenet), ("dmsquash-live", facts.dmsquash_live)) if not has]
    if lacking:
        yield Problem(
            reference="initrd-not-live",
            message=f"the initrd {name} has no {' and no '.join(lacking)}: it cannot boot a LiveOS from a URL",
            hint=f"rebuild it with dracut --add '{' '.join(lacking)}'",
        )
        return
    parts = [what for what, has in (("url-lib.sh", facts.url_lib), ("curl", facts.curl)) if not has]
    if parts:
        yield Problem(
            reference="initrd-no-curl",
            message=f"the initrd {name} has no {' and no '.join(parts)}: it cannot fetch the ISO",
            hint="install curl in the image and rebuild the initrd with dracut --add url-lib",
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
    if subject.boot_url.startswith("https:") and not facts.ca_bundle and not lax:
        yield Problem(
            reference="initrd-no-certificates",
            message=f"the initrd {name} has no CA certificates, but {subject.boot_url} is fetched by https",
            hint="add the CA bundle with dracut --install, or serve the ISO by http",
        )
