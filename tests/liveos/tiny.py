"""An image that is there in a second: right in structure, with nothing in it that boots.

Where a program would look inside a real file (the C library's version, systemd's), this machine's own is taken.
"""

import gzip
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from liveos import newc, specials
from liveos.cache import Cache, content_key
from liveos.programs import BuildError
from liveos.rootfs import BootFiles
from liveos.specials import Inode, folder, symlink

RELEASE = "6.6.104-1.azl3"
SYSTEMD_VERSION = 255

_HERE = Path(__file__).resolve().parent
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_UNITS = "usr/lib/systemd/system"
_OS_RELEASE = """\
NAME="Tiny LiveOS"
ID=tiny-liveos
ID_LIKE=azurelinux
VERSION_ID="1.0"
PRETTY_NAME="Tiny LiveOS 1.0 (not bootable)"
"""
_TARGETS = {
    "basic": "Requires=sysinit.target\nAfter=sysinit.target",
    "emergency": "",
    "local-fs": "",
    "multi-user": "Requires=basic.target\nAfter=basic.target\nAllowIsolate=yes",
    "network": "After=network-pre.target",
    "network-online": "After=network.target",
    "network-pre": "",
    "nss-lookup": "",
    "reboot": "AllowIsolate=yes",
    "poweroff": "AllowIsolate=yes",
    "shutdown": "RefuseManualStart=yes",
    "sockets": "",
    "sysinit": "Wants=local-fs.target\nAfter=local-fs.target",
    "time-set": "",
    "time-sync": "",
}
_INITRD_HOOKS = {
    "cmdline/29-parse-livenet.sh": "",
    "cmdline/30-parse-dmsquash-live.sh": "",
    "cmdline/31-parse-iso-scan.sh": "",
    "initqueue/online/95-fetch-liveupdate.sh": "",
    "pre-udev/30-dmsquash-live-genrules.sh": "",
    "pre-pivot/20-apply-live-updates.sh": "[ -d /run/initramfs/live/updates ] || [ -d /updates ]\n",
}
_DRACUT_MODULES = """\
bash
systemd
systemd-initrd
network-legacy
network
url-lib
dm
dmsquash-live
kernel-modules
livenet
rootfs-block
udev-rules
dracut-systemd
base
fs-lib
img-lib
shutdown
"""


def tree() -> Iterator[Inode]:
    """The root filesystem: merged /usr, what tells an operating system, some units, and the special inodes."""
    for name in ("usr", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", _LIBRARIES, "usr/lib/systemd", _UNITS):
        yield folder(name)
    for name in ("bin", "sbin", "lib", "lib64"):
        yield symlink(name, f"usr/{name}")
    for name in ("boot", "dev", "home", "opt", "proc", "run", "srv", "sys", "var", "var/lib", "var/log", "etc"):
        yield folder(name)
    yield folder("root", mode=0o700)
    yield folder("tmp", mode=0o1777)
    yield folder("var/tmp", mode=0o1777)
    yield symlink("var/run", "/run")
    yield Inode("usr/lib/os-release", data=_OS_RELEASE.encode())
    yield symlink("etc/os-release", "../usr/lib/os-release")
    yield Inode("etc/passwd", data=b"root:x:0:0:root:/root:/bin/sh\n")
    yield Inode("etc/group", data=b"root:x:0:\ndisk:x:6:\n")
    yield Inode("etc/shadow", data=b"root:!:19675::::::\n", mode=0o640, gid=42)
    yield Inode("etc/machine-id", mode=0o444)
    yield folder("usr/lib/modules")
    yield folder(f"usr/lib/modules/{RELEASE}")
    yield from _programs()
    yield folder("etc/systemd")
    yield folder("etc/systemd/system")
    yield folder("etc/systemd/system/multi-user.target.wants")
    yield from _network()
    for name, directives in _TARGETS.items():
        text = f"[Unit]\nDescription={name}\n{directives}\n"
        yield Inode(f"{_UNITS}/{name}.target", data=text.encode())
    yield symlink(f"{_UNITS}/default.target", "multi-user.target")
    yield from specials.inodes()


def _network() -> Iterator[Inode]:
    """DHCP by systemd-networkd."""
    yield folder("etc/systemd/network")
    yield Inode("etc/systemd/network/20-dhcp.network", data=b"[Match]\nType=ether\n\n[Network]\nDHCP=yes\n")
    service = f"{_UNITS}/systemd-networkd.service"
    yield Inode(
        service, data=b"[Unit]\nDescription=network\n\n[Service]\nExecStart=/usr/lib/systemd/systemd-networkd\n"
    )
    yield symlink("etc/systemd/system/multi-user.target.wants/systemd-networkd.service", f"/{service}")


def _programs() -> Iterator[Inode]:
    """Real ELF files of this machine's architecture, where programs that look at an image read versions."""
    loader, libc = _mapped("ld-linux-x86-64.so.2").read_bytes(), _mapped("libc.so.6").read_bytes()
    yield Inode(f"{_LIBRARIES}/ld-linux-x86-64.so.2", data=loader, mode=0o755)
    yield symlink("usr/lib64/ld-linux-x86-64.so.2", "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    yield Inode(f"{_LIBRARIES}/libc.so.6", data=libc, mode=0o755)
    # systemd's version stands in the name of its shared library (which Debian keeps in its own folder, others in
    # usr/lib/systemd) and in the text that `systemd --version` prints; the program around them is never run
    version = f"systemd {SYSTEMD_VERSION} running in %ssystem mode (%s)\0".encode()
    yield Inode("usr/lib/systemd/systemd", data=loader + version, mode=0o755)
    yield Inode(f"usr/lib/systemd/libsystemd-shared-{SYSTEMD_VERSION}.so", data=loader + version, mode=0o755)
    yield Inode("usr/bin/systemctl", data=loader + version, mode=0o755)
    yield symlink("usr/sbin/init", "../lib/systemd/systemd")


def _mapped(name: str) -> Path:
    """A library of this machine, by where this very process has it mapped."""
    maps = Path("/proc/self/maps").read_text()
    for line in maps.splitlines():
        if line.endswith(f"/{name}"):
            return Path(line[line.index("/") :])
    raise BuildError(
        f"{name} is not mapped into this Python: the tiny image needs a Linux x86_64 machine with GNU libc"
    )


def boot_files(cache: Cache) -> BootFiles:
    """A kernel that has a kernel's header and an initrd that has dracut's files; both in the cache."""
    key = content_key(_HERE / "tiny.py", _HERE / "newc.py")
    kernel = cache.get(f"tiny-vmlinuz-{key}", lambda partial: _write(partial, _kernel()))
    initrd = cache.get(f"tiny-initrd-{key}.img", lambda partial: _write(partial, gzip.compress(_initrd(), mtime=0)))
    return BootFiles(kernel=kernel, initrd=initrd, release=RELEASE)


def _write(partial: Path, data: bytes) -> None:
    partial.write_bytes(data)


def _kernel() -> bytes:
    """The header of a bzImage (Documentation/arch/x86/boot.rst), the release text it points at, and nothing to run."""
    sectors = 4  # of set-up code, after the boot sector
    image = bytearray(0x200 * (sectors + 1) + 4096)
    image[0:2] = b"MZ"  # an EFI stub's first bytes
    image[0x1F1] = sectors
    struct.pack_into("<H", image, 0x1FE, 0xAA55)
    image[0x200:0x202] = b"\xeb\x6a"
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x020F)  # boot protocol 2.15
    text_at = 0x300
    struct.pack_into("<H", image, 0x20E, text_at - 0x200)  # kernel_version
    image[0x211] = 1  # loadflags: LOADED_HIGH, a bzImage
    text = f"{RELEASE} (tests@liveos) #1 SMP\0".encode()
    image[text_at : text_at + len(text)] = text
    return bytes(image)


def _initrd() -> bytes:
    """A cpio archive with what tells a dracut initrd that serves a live image, where dracut puts it."""
    hooks = "usr/lib/dracut/hooks"
    files = {
        "etc/initrd-release": "NAME=dracut\nID=dracut\nVERSION_ID=059\n",
        "usr/lib/dracut/dracut-059": "",
        "usr/lib/dracut/modules.txt": _DRACUT_MODULES,
        "usr/lib/dracut-lib.sh": "#!/bin/sh\n",
        "usr/lib/url-lib.sh": "#!/bin/sh\n",
        "usr/sbin/livenetroot": "#!/bin/sh\n",
        "usr/sbin/dmsquash-live-root": "#!/bin/sh\n",
        "usr/bin/curl": "",
        f"usr/lib/modules/{RELEASE}/modules.dep": "",
        **{f"{hooks}/{name}": f"#!/bin/sh\n{body}" for name, body in _INITRD_HOOKS.items()},
    }
    parents = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    entries = [newc.Entry(".", stat.S_IFDIR | 0o755)]
    entries += [newc.Entry(name, stat.S_IFDIR | 0o755) for name in sorted(parents)]
    entries += [newc.Entry(name, stat.S_IFREG | 0o755, text.encode()) for name, text in sorted(files.items())]
    entries += [
        newc.Entry(name, stat.S_IFLNK | 0o777, target.encode())
        for name, target in {"init": "usr/lib/systemd/systemd", "lib": "usr/lib", "sbin": "usr/sbin"}.items()
    ]
    return newc.archive(entries)
