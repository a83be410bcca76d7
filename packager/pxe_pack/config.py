"""The whole of a `fetch.yaml`: the agent's configuration, and the section `pack`, which only pxe-pack reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

from pxe_fetch.contract import keys, model, reader, validators
from pxe_fetch.contract.keys import Key, Text, Whole
from pxe_fetch.contract.model import FetchConfig
from pxe_pack.choices import COMPRESSORS, INJECTORS


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """The `pack` section: what pxe-pack does. Every key is a flag too, and flags win. Paths as written."""

    image: str | None = Key(Text(validators.file_name), "The LiveOS to pack; it is only read.").default(None)
    output: str | None = Key(
        Text(validators.file_name), "The folder of the layout, for the TFTP and HTTP servers."
    ).default(None)
    boot_url: str | None = Key(Text(validators.url), "Where nodes will find the ISO: what `root=live:` says.").default(
        None
    )
    artifact_url: str | None = Key(
        Text(validators.base_url), "Where nodes will find the files given by `source`."
    ).default(None)
    inject: str = Key(
        Text(validators.OneOf(*INJECTORS)), "How the agent gets into the image; `auto`: pxe-pack chooses."
    ).default("auto")
    boot_loader: str | None = Key(
        Text(validators.file_name), "A folder with shim and GRUB, if the image's own cannot netboot."
    ).default(None)
    compressor: str | None = Key(  # None: as the image has it
        Text(validators.OneOf(*COMPRESSORS)), "Compress the whole root filesystem anew with this (`rootfs`)."
    ).default(None)
    level: int | None = Key(Whole(1, 22), "The level of `compressor`.").default(None)


SECTIONS = {**model.SECTIONS, **keys.sections({"pack": Pack})}


class Document(NamedTuple):
    """What a `fetch.yaml` says."""

    fetch: FetchConfig
    pack: Pack


def read(text: str, *, name: str) -> Document:
    """The configuration in the YAML `text`; positions call the file `name`.

    Raises ProblemError with every problem found, each with its position, in the order of the text.
    """
    fetch, others = reader.read_all(text, name=name, sections=SECTIONS)
    return Document(fetch=fetch, pack=cast("Pack", others.get("pack", Pack())))
