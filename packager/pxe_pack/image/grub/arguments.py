"""The kernel arguments of an entry that boots a LiveOS over the network.

Sources: dracut.cmdline(7), "Booting live images" and "ip="; dracut's network-legacy, ifup.sh (`either6`: router
advertisements, else DHCPv6), and url-lib.sh (curl takes an IPv6 address in brackets); Image Customizer's PXE output
(`rd.live.azldownloader=enable` selects the downloader in Azure Linux's dracut; others ignore it).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from pxe_pack.image.grub.words import quoted, split_arguments, unquoted

AZL_DOWNLOADER = "rd.live.azldownloader"
NO_PROMPT = "rd.live.overlay.nouserconfirmprompt"  # else dracut 059 waits for [Enter] if rd.live.overlay has no device
IPV4, IPV6 = "ip=dhcp", "ip=either6"

_IPV4_METHODS = frozenset({"dhcp", "dhcp4", "on", "any", "single-dhcp"})
_IPV6_METHODS = frozenset({"dhcp6", "auto6", "either6", "link6"})


def is_live(arguments: Iterable[str]) -> bool:
    """Whether they boot a LiveOS with dracut."""
    return any(argument.startswith(("root=live:", "rd.live.")) for argument in arguments)


def address(url: str) -> IPv4Address | IPv6Address | None:
    """The address that a URL has for its host; None for a name."""
    try:
        return ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return None


def network_argument(url: str) -> str:
    """The argument that has dracut configure the network so that it can reach `url`."""
    return IPV6 if isinstance(address(url), IPv6Address) else IPV4


def reaches(url: str, arguments: Iterable[str]) -> bool:
    """Whether the `ip=` arguments configure the kind of address that `url` has; True if that cannot be told."""
    values = [argument.partition("=")[2] for argument in arguments if argument.startswith("ip=")]
    methods = {method for value in values for method in re.split(r"[:,]", value)}
    found = address(url)
    if found is None or not methods & (_IPV4_METHODS | _IPV6_METHODS) or any("[" in value for value in values):
        return True
    return bool(methods & (_IPV6_METHODS if isinstance(found, IPv6Address) else _IPV4_METHODS))


def for_address(words: Sequence[str], url: str) -> list[str]:
    """`words` with the network argument for `url` in place of the other one of ours."""
    if address(url) is None:
        return list(words)
    wanted = network_argument(url)
    return [wanted if unquoted(word) in (IPV4, IPV6) else word for word in words]


def network_arguments(words: Sequence[str], *, variables: Mapping[str, str], boot_url: str) -> list[str]:
    """The words of a live entry's arguments, with what booting over the network needs, none of them twice.

    An empty `boot_url` leaves `root=` unchanged.
    """
    given = (argument for argument in split_arguments(words, variables) if argument.startswith("root="))
    root = f"root=live:{boot_url}" if boot_url else next(given, "")
    made: list[str] = []
    for word in for_address(words, boot_url):
        arguments = split_arguments([word], variables)
        if any(argument.startswith("root=") for argument in arguments):
            made += [quoted(root if argument.startswith("root=") else argument) for argument in arguments]
        else:
            made.append(word)
    present = split_arguments(made, variables)
    added = [] if not root or any(argument.startswith("root=") for argument in present) else [root]
    added += [] if any(argument.startswith("ip=") for argument in present) else [network_argument(boot_url)]
    if not any(argument.startswith(f"{AZL_DOWNLOADER}=") for argument in present):
        added.append(f"{AZL_DOWNLOADER}=enable")
    added += [NO_PROMPT] if "rd.live.overlay=1" in present and NO_PROMPT not in present else []
    # arguments after a lone "--" are for init
    end = made.index("--") if "--" in made else len(made)
    return [*_once([*made[:end], *map(quoted, added)]), *made[end:]]


def _once(words: Iterable[str]) -> list[str]:
    """`words` without repetitions of earlier ones."""
    seen: dict[str, str] = {}
    for word in words:
        seen.setdefault(unquoted(word), word)
    return list(seen.values())
