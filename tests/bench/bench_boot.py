"""How soon the kernel of a node runs: a signed program against shim and GRUB, of the same image.

    .venv/bin/python tests/bench/bench_boot.py [--rounds N]

Both boot in turns until the kernel speaks; what follows is the same. First in `pxe-pack boot`, whose TFTP server is
QEMU's; then from `pxe-pack serve`, by PXE and by UEFI HTTP boot, where users may have network cards of their own (tun).
It prints the seconds since the firmware began to load over the network, and their ratio, and gives no verdict. Needs
nothing else to run beside it.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from boot.rack import WITHOUT_PXE, can_run, rack
from liveos import shapes
from packing.signing import authority
from pxe_pack.boot.stages import SIGNS, Stage

PXE_PACK = Path(sys.executable).with_name("pxe-pack")
CONFIG = """\
version: 1
pack: {boot_url: "http://10.0.0.1/liveos.iso"}
artifacts: [{name: m, url: "http://10.0.0.1/m", sha256: "%s", dest: /srv/m}]
"""


def layouts(folder: Path) -> dict[str, Path]:
    """The layouts to compare, by name."""
    config = folder / "fetch.yaml"
    config.write_text(CONFIG % ("0" * 64))
    key = authority(folder, "Bench")
    flags = {"GRUB": [], "signed": ["--secure-boot-key", str(key.key), "--secure-boot-cert", str(key.certificate)]}
    for name, more in flags.items():
        command = [str(PXE_PACK), "pack", str(config), "--image", str(shapes.cached(shapes.SHAPES["ic16"]))]
        subprocess.run([*command, "--output", str(folder / name), "--quiet", *more], check=True, capture_output=True)
    return {name: folder / name for name in flags}


def seconds_to_kernel(layout: Path) -> float:
    """Boot, and stop when the kernel speaks. Raises RuntimeError if it never does."""
    booting = subprocess.Popen(
        [PXE_PACK, "boot", layout, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert booting.stdout is not None
    seconds = 0.0
    with booting:
        for line in booting.stdout:
            event = json.loads(line)
            title = str(event.get("title", ""))
            if title.startswith(("network:", "GRUB:")):
                seconds += float(event.get("seconds", 0))
            if title.startswith("kernel:"):
                booting.send_signal(signal.SIGINT)
                return seconds
    raise RuntimeError(f"{layout.name}: the kernel did not start")


def seconds_from_serve(layout: Path, *options: str) -> float:
    """The same from `pxe-pack serve`, for a machine with these options of QEMU; AssertionError if it never does."""
    kernel = dict(SIGNS)[Stage.KERNEL]
    with (
        tempfile.TemporaryDirectory() as folder,
        rack(layout, Path(folder), "--dhcp", "full") as made,
        made.machine("52:54:00:00:00:01", *options) as node,
    ):
        node.wait_until(lambda: "DHCPDISCOVER(" in made.log("dnsmasq.log"), why=made.said)
        began = time.monotonic()
        node.wait_until(lambda: kernel.search(node.console), why=made.said)
        return time.monotonic() - began


def main() -> None:
    """Boot in turns, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    ways: dict[str, Callable[[Path], float]] = {"pxe-pack boot, TFTP": seconds_to_kernel}
    if can_run():
        ways["serve, TFTP"] = seconds_from_serve
        ways["serve, HTTP boot"] = lambda layout: seconds_from_serve(layout, *WITHOUT_PXE)
    with tempfile.TemporaryDirectory() as folder:
        made = layouts(Path(folder))
        for way, seconds in ways.items():
            took: dict[str, list[float]] = {name: [] for name in made}
            for _ in range(rounds):
                for name, layout in made.items():
                    took[name].append(seconds(layout))
            print(f"{way}:")
            for name, layout in made.items():
                size = sum(path.stat().st_size for path in layout.glob("boot*.efi"))
                all_of_them = " ".join(f"{one:.1f}" for one in took[name])
                print(f"{name:8} {statistics.median(took[name]):6.1f} s  ({all_of_them}; boot program {size:,} bytes)")
            ratio = statistics.median(took["signed"]) / statistics.median(took["GRUB"])
            print(f"signed / GRUB: {ratio:.2f}")


if __name__ == "__main__":
    main()
