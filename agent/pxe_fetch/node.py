"""This node: the facts that URLs, destinations, headers and `when` refer to, and the secrets in its credentials.

Each is read when it is used.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from pxe_fetch import regular_file
from pxe_fetch.contract import facts, validators
from pxe_fetch.contract.model import Proxy, When
from pxe_fetch.contract.paths import CREDENTIALS_DIR
from pxe_fetch.contract.problem import Problem, ProblemError, RuleError, printable
from pxe_fetch.contract.registry import Login

_LARGEST = 1024 * 1024  # bytes of a file; systemd gives a unit no more in credentials (CREDENTIALS_TOTAL_SIZE_MAX)
_QUERY = re.compile(r"[A-Za-z0-9!$&'()*+,/:;=?@._~%\[\]-]+", re.ASCII)
_FILES = {
    "hostname": "proc/sys/kernel/hostname",
    "machine_id": "etc/machine-id",
    "serial": "sys/class/dmi/id/product_serial",
    "uuid": "sys/class/dmi/id/product_uuid",
}


class Node:
    """The node whose /proc, /sys and /etc are below `root`: "/" except in tests."""

    def __init__(self, *, root: Path = Path("/")) -> None:
        self.root = root

    @cached_property
    def arguments(self) -> facts.KernelArguments:
        """Those of /proc/cmdline; none if it is missing (a container, a sandbox). Raises ProblemError."""
        return facts.parse(self._read("proc/cmdline"))

    @property
    def credentials(self) -> Path | None:
        """The directory of this unit's credentials (systemd.exec(5), ImportCredential=); None if it has none."""
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        return Path(directory) if directory else None

    def fact(self, name: str) -> str:
        """The fact `name`, or for `cmdline.NAME` the value of that kernel argument.

        Raises ProblemError if it is unknown or empty, or has characters that may steer a terminal or a reader of lines;
        the hint says where it comes from.
        """
        value = self.find(name)
        if value and value.isprintable() and "\ufffd" not in value:  # it stands for bytes that are not UTF-8
            return value
        if name.startswith(facts.CMDLINE):
            argument = name.removeprefix(facts.CMDLINE)
            lacking = f"this node's kernel command line has no {argument}=VALUE"
            hint = f"add {argument}=VALUE to the kernel arguments of this node, or use `when:`"
        elif name in facts.FACTS:
            lacking, hint = f"this node has no {name}", f"it comes from {facts.FACTS[name]}"
        else:
            message = f"${{{name}}} is not a known fact"
            raise ProblemError(Problem(reference="fact-unknown", message=message, hint=f"facts: {facts.KNOWN}"))
        lacking = f"it has unprintable characters on this node: {value!a}" if value else lacking
        reference = "fact-unprintable" if value else "fact-empty"
        raise ProblemError(Problem(reference=reference, message=f"${{{name}}} is used, but {lacking}", hint=hint))

    def fill_in(self, url: str) -> str:
        """`url` with its ${facts} filled in, percent-encoded. Raises ProblemError as `fact` does."""
        return facts.fill_url(url, self.fact)

    def find(self, name: str) -> str:
        """As `fact`, but "" if it is unknown or empty."""
        if name.startswith(facts.CMDLINE):
            return self.arguments.others.get(name.removeprefix(facts.CMDLINE).replace("-", "_"), "")
        if name == "arch":
            return os.uname().machine
        if name == "mac":
            return self._mac()
        value = self._read(_FILES[name]) if name in _FILES else ""
        return value.lower() if name == "uuid" else value

    @property
    def identity(self) -> str:
        """A value unique to this node and the same at every boot: its first non-empty fact; "" if it has none.

        /etc/machine-id comes late in the order: a live system generates a new one at each boot (machine-id(5)).
        """
        return next(filter(None, map(self.find, ("mac", "uuid", "serial", "machine_id", "hostname"))), "")

    def matches(self, when: When) -> bool:
        """Whether `when` selects this node: for each fact and kernel argument, one of its globs must match the value.

        A fact that the node lacks is "", which only `*` and the like match; that is no error. An absent kernel argument
        matches nothing.
        """
        others = self.arguments.others
        return all(
            any(fnmatchcase(self.find(name).lower(), glob.lower()) for glob in globs)
            for name, globs in when.facts.items()
        ) and all(
            name in others and any(fnmatchcase(others[name], glob) for glob in globs)
            for name, globs in when.cmdline.items()
        )

    def summary(self) -> dict[str, str]:
        """The facts that identify this node in a report."""
        return {name: printable(self.find(name)) for name in ("hostname", "arch", "mac", "uuid", "machine_id")}

    def secret_headers(self, credential: str) -> dict[str, str]:
        """The header fields in the file `credential` of the unit's credentials: one `Name: value` a line.

        Raises ProblemError if it is missing or has other lines. Its content never appears in a message.
        """
        form = "one `Name: value` a line"
        text = self._credential(credential, key="header_credential", form=form)
        headers: dict[str, str] = {}
        for line in filter(str.strip, text.splitlines()):
            name, colon, value = (part.strip() for part in line.partition(":"))
            try:
                headers[validators.header_name(name)] = value
            except RuleError:
                colon = ""
            if not colon or not value.isascii() or not value.isprintable():
                found = "has a line that is not `Name: value` of a header field that may be set"
                raise self._credential_error("invalid", credential, found, form=form)
        return headers

    def secret_query(self, credential: str) -> str:
        """The text of the file `credential` of the unit's credentials, for the query of a URL (RFC 3986, 3.4).

        A `?` or `&` in front of it, as portals show one, is dropped. Raises ProblemError if it is missing or is none.
        Its content never appears in a message.
        """
        form = "`name=value` pairs with `&` between them, on one line"
        query = self._credential(credential, key="query_credential", form=form).strip().lstrip("?&")
        if not _QUERY.fullmatch(query):
            raise self._credential_error(
                "invalid", credential, "has something other than the query of a URL", form=form
            )
        return query

    def with_password(self, proxy: Proxy) -> Proxy:
        """`proxy` with the user and password of its credential, if it names one, in the urls of the proxies.

        Raises ProblemError as `login`.
        """
        if proxy.credential is None:
            return proxy
        found = self.login(proxy.credential, key="proxy.credential")
        login = f"//{quote(found.user, safe='')}:{quote(found.password, safe='')}@"
        http, https = (url and url.replace("//", login, 1) for url in (proxy.http, proxy.https))
        return replace(proxy, http=http, https=https)

    def login(self, credential: str | None, *, key: str) -> Login:
        """The `user:password` in the file `credential` (RFC 7617), of registries also an identity token; None: nobody.

        Raises ProblemError if the credential is missing or has something else. Its content never appears in a message.
        """
        if credential is None:
            return Login()
        is_registry = key == "registry_credential"
        form = f"`user:password`{' or an identity token' if is_registry else ''} on one line"
        text = self._credential(credential, key=key, form=form).rstrip("\r\n")
        user, colon, password = text.partition(":")
        if not user or not (colon or is_registry) or not text.isprintable() or "\ufffd" in text:
            raise self._credential_error("invalid", credential, "has something other than `user:password`", form=form)
        return Login(user=user, password=password) if colon else Login(identity_token=user)

    def _credential(self, name: str, *, key: str, form: str) -> str:
        """The text of a credential of the unit, else of the image; bytes that are not UTF-8 are U+FFFD."""
        for folder in filter(None, (self.credentials, self.root / CREDENTIALS_DIR.lstrip("/"))):
            try:
                return regular_file.read(folder / name, limit=_LARGEST).decode(errors="replace")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._credential_error("invalid", name, f"cannot be read: {error.strerror}", form=form) from None
        raise self._credential_error("missing", name, f"({key}) is missing", form=form)

    def _credential_error(self, reference: str, name: str, found: str, *, form: str) -> ProblemError:
        """What is wrong with the credential `name`, with the place where it is, or might be."""
        file = f"{CREDENTIALS_DIR}/{name}"
        unit = f"pass the credential {name} to the unit (ImportCredential=, SMBIOS type 11)"
        if reference == "missing":
            hint = f"{unit}, or add the file {file} to the image: {form}"
        elif self.credentials and os.path.lexists(self.credentials / name):
            hint = f"{unit}, {form}"
        else:
            hint = f"correct the file {file} in the image: {form}"
        message = f"the credential {name} {found}"
        return ProblemError(Problem(reference=f"credential-{reference}", message=message, hint=hint))

    def _read(self, path: str) -> str:
        try:
            return regular_file.read(self.root / path, limit=_LARGEST).decode(errors="replace").strip()
        except OSError:
            return ""

    def _mac(self) -> str:
        """The MAC address of the interface with the default route, else of the first hardware interface."""
        for name in self._default_routes():
            if address := self._read(f"sys/class/net/{name}/address"):
                return address.lower()
        try:
            entries = (self.root / "sys/class/net").iterdir()
            hardware = [entry.name for entry in entries if (entry / "device").exists()]
        except OSError:
            return ""
        by_index = sorted(hardware, key=lambda name: (int(self._read(f"sys/class/net/{name}/ifindex") or 0), name))
        return self._read(f"sys/class/net/{by_index[0]}/address").lower() if by_index else ""

    def _default_routes(self) -> list[str]:
        """The interfaces of the default routes, IPv4 before IPv6, then by metric (/proc/net/route, ipv6_route)."""
        tables = (self._read(f"proc/net/{table}").splitlines() for table in ("route", "ipv6_route"))
        ipv4, ipv6 = ([words for line in table if len(words := line.split()) >= 10] for table in tables)  # noqa: PLR2004
        found = [(4, int(words[6]), words[0]) for words in ipv4 if words[1] == words[7] == "0" * 8]
        found += [
            (6, int(words[5], 16), words[9])
            for words in ipv6
            if words[0] == "0" * 32 and words[1] == "00" and words[9] != "lo"
        ]
        return [name for _, _, name in sorted(found)]
