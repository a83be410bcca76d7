"""`pxe-pack payload FILE -o DIR` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from pxe_pack.console import Console
from pxe_pack.freeze import ARCHITECTURES, THIS_MACHINE
from pxe_pack.image_customizer import INITRAMFS_TYPES, Request, document, summary, write_payload
from pxe_pack.parser import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `payload`."""
    parser.description = (
        "Write the agent, its units and its configuration for a program that builds images and includes them. There is "
        "no other way into an image that is sealed at build time."
    )
    parser.add_argument("config", type=Path, metavar="FILE", help="the fetch.yaml")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--format",
        choices=("image-customizer",),
        default="image-customizer",
        help="the program: Azure Linux Image Customizer (os.additionalFiles, os.services) is the only one so far",
    )
    parser.add_argument("--agent", type=Path, metavar="DIR", help="use this frozen agent instead of building one")
    parser.add_argument(
        "--arch",
        choices=tuple(ARCHITECTURES),
        default=THIS_MACHINE,
        help="the image's processor, without --agent (default: this machine's)",
    )
    parser.add_argument("--artifact-url", metavar="URL", help="base URL of the artifacts given with `source:`")
    parser.add_argument(
        "--systemd",
        type=count,
        metavar="N",
        help="the systemd version in the image (default: any, without what only newer versions support)",
    )
    parser.add_argument(
        "--initramfs-type", choices=INITRAMFS_TYPES, help="pxe.initramfsType of the image; needed with `live_space`"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Write the payload. Raises InputError, WorkError and OSError."""
    request = Request(
        config=arguments.config,
        output=arguments.output,
        agent=arguments.agent,
        arch=arguments.arch,
        artifact_url=arguments.artifact_url,
        systemd=arguments.systemd,
        initramfs_type=arguments.initramfs_type,
    )
    written = write_payload(request, console=console)
    console.result(document(written), summary(written))
    return 0
