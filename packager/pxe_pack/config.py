"""The whole of a `fetch.yaml`: the agent's configuration, and the section `pack`, which only pxe-pack reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

from pxe_fetch.contract import checks, keys, model, reader, validators
from pxe_fetch.contract.keys import Group, Size, Text, Texts, Whole, key
from pxe_fetch.contract.model import FetchConfig
from pxe_pack.choices import AUTO, CHAINS, COMPRESSORS, INJECTORS, VERIFY_ISO


def boot_url(text: str) -> str:
    """A URL that an initrd may fetch: one of ours, or by NFS, which the agent does not know."""
    return text if text.startswith("nfs://") else validators.url(text)


def report_url(text: str) -> str:
    """`auto`, or the URL of a collector."""
    return text if text == AUTO else validators.http_url(text)


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureBoot:
    """The `pack.secure_boot` section: how the boot is signed. Paths as written."""

    key: str | None = keys.key(
        None, Text(validators.file_name), "The private key, as a PEM file: only osslsigncode reads it."
    )
    cert: str | None = keys.key(None, Text(validators.file_name), "The certificate of `key`, as a PEM file.")
    passphrase: str | None = keys.key(None, Text(validators.file_name), "A file with the passphrase of `key`.")
    chain: str = keys.key(
        "db", Text(validators.OneOf(*CHAINS)), "What starts the signed program: the firmware, or shim."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """The `pack` section: what pxe-pack does. Every key is a flag too, and flags win. Paths as written."""

    image: str | None = key(None, Text(validators.file_name), "The LiveOS to pack; it is only read.")
    output: str | None = key(
        None, Text(validators.file_name), "The folder of the layout, for the TFTP and HTTP servers."
    )
    boot_url: str | None = key(None, Text(boot_url), "Where nodes will find the ISO: what `root=live:` says.")
    artifact_url: str | None = key(
        None, Text(validators.base_url), "Where nodes will find the files given by `source`."
    )
    inject: str = key(
        "auto", Text(validators.OneOf(*INJECTORS)), "How the agent gets into the image; `auto`: pxe-pack chooses."
    )
    verify_iso: str = key(
        "auto",
        Text(validators.OneOf(*VERIFY_ISO)),
        "Whether nodes verify the ISO that they download; `auto`: if they can.",
    )
    boot_loader: str | None = key(
        None, Text(validators.file_name), "A folder with shim and GRUB, if the image's cannot boot over a network."
    )
    compressor: str | None = key(  # None: as the image has it
        None, Text(validators.OneOf(*COMPRESSORS)), "Recompress the whole root filesystem with this (`rootfs`)."
    )
    level: int | None = key(None, Whole(1, 22), "The level of `compressor`.")
    node_memory: int | None = key(  # bytes
        None, Size(), "Memory of the smallest node; everything has to fit in it."
    )
    leave_out: tuple[str, ...] = key(
        (), Texts(validators.any_text), "The image's own files that are not served: patterns of paths."
    )
    secure_boot: SecureBoot = key(
        SecureBoot(), Group("secure_boot"), "Sign kernel, initrd and kernel arguments, for nodes with Secure Boot."
    )
    trust: tuple[str, ...] = key(
        (), Texts(validators.file_name), "minisign public keys: a configuration by URL has to be signed by one."
    )
    report: str | None = key(
        None,
        Text(report_url),
        "Where nodes report to, with the layout's token; `auto`: to its server.",
    )


SECTIONS = {**model.SECTIONS, **keys.sections({"pack": Pack, "secure_boot": SecureBoot})}


class Document(NamedTuple):
    """What a `fetch.yaml` says."""

    fetch: FetchConfig
    pack: Pack


def read(text: str, *, name: str, pin: reader.Pin = checks.unpinned) -> Document:
    """The configuration in the YAML `text`; positions call the file `name`.

    Artifacts without a digest are passed to `pin`; by default they are refused. Raises ProblemError with every problem
    found, each with its position, in the order of the text.
    """
    fetch, others = reader.read_all(text, name=name, sections=SECTIONS, pin=pin)
    return Document(fetch=fetch, pack=cast("Pack", others.get("pack", Pack())))
