"""Adapts the unit to an image: to its version of systemd, and to the folders the agent may write.

units/pxe-fetch.service is written for the newest systemd. Three changes are made, line by line:

- Directives unknown to the image's systemd are removed (systemd would log a warning at each boot). If the version is
  unknown, the oldest supported one is assumed.
- If systemd has credentials but no `ImportCredential=`, each credential the agent may read gets a `LoadCredential=`
  line (systemd ignores absent credentials).
- `ReadWritePaths=` gets the configuration's allowed_roots, each with a `-` so that it may be absent. If a root is in a
  folder that the sandbox hides or replaces (`ProtectHome=`, `PrivateTmp=`), only that directive is relaxed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from pxe_fetch.contract.model import FetchConfig
from pxe_fetch.contract.paths import (
    AGENT,
    CATALOG_UNIT_NAME,
    CREDENTIAL,
    KEPT_DIR,
    LIVE_SPACE_UNIT_NAME,
    TARGET_NAME,
    UNIT_DIR,
    UNIT_NAME,
)
from pxe_fetch.contract.problem import Problem
from pxe_pack import tools
from pxe_pack.cleanup import held, temporary_folder
from pxe_pack.console import Console
from pxe_pack.tools import InputError

OLDEST_SYSTEMD = 245  # directives of later versions are optional
EXPOSURE_LIMIT = 2.1  # `systemd-analyze security` rates from 0 (safe) to 10 (exposed)
OLD_EXPOSURE_LIMIT = 2.3  # … where systemd has no ProtectProc= yet

# The systemd release that introduced a directive (systemd's NEWS, "CHANGES WITH").
SINCE = {
    "ProtectProc": 247,
    "Upholds": 249,
    "ImportCredential": 254,
    "RestartMaxDelaySec": 254,
    "RestartMode": 254,
    "RestartSteps": 254,
}

# Since this release `LoadCredential=NAME` without a path reads the service manager's credential of that name.
_LOAD_CREDENTIAL_SINCE = 250

_DIRECTIVE = re.compile(r"(?P<name>\w+)=(?P<value>.*)")
_HOMES = ("/home", "/root", "/run/user")  # hidden by ProtectHome=, systemd.exec(5)
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108  replaced by PrivateTmp=
_JOURNALCTL = "/usr/bin/journalctl"
# Units that our unit refers to; `systemd-analyze verify --root` needs them.
_NAMED_UNITS = ("network-online.target", "nss-lookup.target", "multi-user.target", "basic.target", "sysinit.target")


def unit_files() -> Path:
    """The folder with the units and the catalog: in the installed package, else in the checkout."""
    installed = Path(__file__).parent / "units"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "units"


def service_for(config: FetchConfig, *, systemd: int | None) -> str:
    """The service for an image with this release of systemd (None: unknown) and this configuration."""
    return fitted_unit(
        (unit_files() / UNIT_NAME).read_text(encoding="utf-8"),
        systemd=systemd,
        roots=config.allowed_roots,
        credentials=_credentials(config),
    )


def checked_service(config: FetchConfig, *, systemd: int | None, console: Console) -> str:
    """`service_for`, checked with systemd-analyze if that is installed. Raises InputError."""
    service = service_for(config, systemd=systemd)
    findings = unit_problems(service)
    if any(problem.severity == "error" for problem in findings):
        raise InputError(*findings)
    if findings:
        console.problems(findings)
    return service


def lacking_credentials(config: FetchConfig, packed: FetchConfig, *, systemd: int | None) -> list[str]:
    """The credentials that `config` needs and that a unit made for the configuration `packed` does not get."""
    by_name = systemd is not None and _LOAD_CREDENTIAL_SINCE <= systemd < SINCE["ImportCredential"]
    return sorted(_credentials(config) - _credentials(packed)) if by_name else []


def _credentials(config: FetchConfig) -> set[str]:
    """The names of the credentials that the configuration refers to."""
    names = [*config.report.credentials, *(name for one in config.artifacts for name in one.credentials)]
    return set(filter(None, [*names, config.proxy.credential]))


def live_space_unit(config: FetchConfig, *, full_os: bool) -> str:
    """The unit that enlarges the writable layer of a live system; empty if the configuration does not ask for it.

    `full_os`: the root filesystem is the initrd, so the layer is the tmpfs that the kernel unpacked it to. Then the
    device is named as well: without it mount(8) would add the options that fstab has for another root filesystem.
    """
    if not config.live_space:
        return ""
    text = (unit_files() / LIVE_SPACE_UNIT_NAME).read_text(encoding="utf-8")
    size, where = config.live_space.replace("%", "%%"), "rootfs /" if full_os else "/run"
    return re.sub(r"(?m)^ExecStart=.*$", f"ExecStart=mount -v -o remount,size={size} {where}", text)


def fitted_unit(text: str, *, systemd: int | None, roots: Sequence[str], credentials: Iterable[str] = ()) -> str:
    """The service `text` adapted to this release of systemd (None: unknown), with write access to `roots`.

    `credentials` are the names used in the configuration. The credential that may hold the configuration itself is
    added.
    """
    release = systemd if systemd is not None else OLDEST_SYSTEMD
    if _LOAD_CREDENTIAL_SINCE <= release < SINCE["ImportCredential"]:
        wanted = sorted({CREDENTIAL, *credentials})
        text = re.sub(r"(?m)^ImportCredential=.*$", "\n".join(f"LoadCredential={name}" for name in wanted), text)
    lines = []
    for line in _known_to(release, text):
        found = _DIRECTIVE.match(line)
        lines.append(_fitted_line(found["name"], found["value"], roots) if found else line)
    return "\n".join(lines) + "\n"


def _known_to(systemd: int, text: str) -> list[str]:
    """The lines of `text` without directives that this release of systemd does not know."""
    return [
        line
        for line in text.splitlines()
        if not (found := _DIRECTIVE.match(line)) or SINCE.get(found["name"], 0) <= systemd
    ]


def _fitted_line(name: str, value: str, roots: Sequence[str]) -> str:
    if name == "ReadWritePaths" and value != f"-{KEPT_DIR}":
        value = " ".join(f"-{_escaped(root)}" for root in roots)
    elif name == "ProtectHome" and _reaches(roots, _HOMES):
        value = "read-only"
    elif name == "PrivateTmp" and _reaches(roots, _TEMPORARY):
        value = "no"
    return f"{name}={value}"


def _reaches(roots: Iterable[str], folders: Iterable[str]) -> bool:
    return any(root == folder or root.startswith(f"{folder}/") for root in roots for folder in folders)


def _escaped(path: str) -> str:
    """A path escaped for a unit file: specifiers and quotes (systemd.unit(5), systemd.syntax(7))."""
    text = path.replace("\\", "\\\\").replace("%", "%%").replace('"', '\\"')
    return text.replace(" ", "\\x20").replace("'", "\\x27")


def unit_problems(service: str) -> list[Problem]:
    """What `systemd-analyze` reports about an adapted service; empty if it is not installed.

    Directives that this machine's systemd is too old to know are not checked.
    """
    if tools.find("systemd-analyze") is None:
        return []
    found = re.match(rb"systemd (\d+)", tools.run("systemd-analyze", "--version"))
    service = "\n".join(_known_to(int(found[1]), service)) if found else service
    # a killed systemd-analyze leaves /tmp/systemd-temporary-XXXXXX behind, even if TMPDIR is set
    with temporary_folder(prefix="pxe-pack-unit-") as root, held():
        _lay_out(root, service)
        limit = EXPOSURE_LIMIT if "\nProtectProc=" in service else OLD_EXPOSURE_LIMIT
        names = (UNIT_NAME, TARGET_NAME, CATALOG_UNIT_NAME)
        verify = ("verify", f"--root={root}", "--man=no", "--recursive-errors=no", *names)
        rate = ("security", "--offline=true", f"--root={root}", "--no-pager", UNIT_NAME)
        with tools.start("systemd-analyze", *verify) as verifying, tools.start("systemd-analyze", *rate) as rating:
            return [*_verified(verifying), *_rated(rating, limit=limit)]


def _lay_out(root: Path, service: str) -> None:
    """Create the files that `systemd-analyze --root` needs to verify the unit."""
    units = root / UNIT_DIR.lstrip("/")
    units.mkdir(parents=True)
    (units / UNIT_NAME).write_text(service)
    for name in (TARGET_NAME, CATALOG_UNIT_NAME):
        shutil.copyfile(unit_files() / name, units / name)
    for name in _NAMED_UNITS:
        (units / name).write_text(f"[Unit]\nDescription={name}\n")
    for path in (AGENT, _JOURNALCTL):
        program = root / path.lstrip("/")
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_bytes(b"\x7fELF")
        program.chmod(0o755)


def _verified(process: subprocess.Popen[bytes]) -> list[Problem]:
    """The problems found by a `systemd-analyze verify`."""
    _, errors = process.communicate()
    said = [line for line in errors.decode(errors="replace").splitlines() if "pxe-fetch" in line]
    if not said and process.returncode == 0:
        return []
    return [Problem(reference="unit-invalid", message=f"systemd-analyze verify: {line}") for line in said] or [
        Problem(reference="unit-invalid", message=f"systemd-analyze verify failed with exit code {process.returncode}")
    ]


def _rated(process: subprocess.Popen[bytes], *, limit: float) -> list[Problem]:
    """The problem found by a `systemd-analyze security`."""
    output, _ = process.communicate()
    found = re.search(rb"Overall exposure level for [^:]*: (\d+\.\d+)", output)
    if found and float(found[1]) <= limit:
        return []
    level = found[1].decode() if found else "unknown"
    return [
        Problem(
            reference="unit-exposed",
            message=f"systemd-analyze security rates the unit {level}; the limit is {limit}",
            hint="narrow allowed_roots",
            severity="warning",
        )
    ]
