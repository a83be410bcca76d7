"""Maps of sparse files in an archive that cannot be: a sentence and 77, in little memory; those of GNU tar are read."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from collections.abc import Sequence

import pytest

from fakes.node import FakeNode
from fakes.server import Script, Server
from pxe_fetch.contract.tar import HEADERS_LIMIT

Extents = Sequence[tuple[int, int]]  # offset and bytes
DATA = b"0123456789"
SIZE = 3000
LIMIT = 100 << 20  # bytes of memory


def gnu(extents: Extents) -> bytes:
    """The format of GNU tar since 1995: four extents in the header, and 21 in each block behind it."""
    info = tarfile.TarInfo("sparse")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, len(DATA)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    spelled = [b"%011o\0%011o\0" % extent for extent in extents]
    header[386 : 386 + 24 * len(spelled[:4])] = b"".join(spelled[:4])
    header[482:495] = bytes([len(spelled) > 4]) + b"%011o\0" % SIZE
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    more = [spelled[at : at + 21] for at in range(4, len(spelled), 21)]
    blocks = [b"".join(some).ljust(504, b"\0") + bytes([some is not more[-1]]) + bytes(7) for some in more]
    return bytes(header) + b"".join(blocks) + DATA.ljust(512, b"\0") + bytes(1024)


def pax(data: bytes, **fields: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("sparse")
        info.size, info.pax_headers = len(data), {f"GNU.sparse.{key}": value for key, value in fields.items()}
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def pax_0_1(extents: Extents) -> bytes:
    return pax(DATA, major="0", minor="1", size=str(SIZE), map=",".join(f"{at},{size}" for at, size in extents))


def pax_1_0(extents: Extents) -> bytes:
    text = f"{len(extents)}\n" + "".join(f"{at}\n{size}\n" for at, size in extents)
    data = text.encode().ljust(-(-len(text) // 512) * 512, b"\0") + DATA
    return pax(data, major="1", minor="0", name="sparse", realsize=str(SIZE))


FORMATS = {"gnu": gnu, "pax 0.1": pax_0_1, "pax 1.0": pax_1_0}
SENSELESS: dict[str, tuple[Extents, str]] = {
    "overlap": ([(0, 5), (3, 5)], "overlap, or are not in order"),
    "descending": ([(100, 5), (3, 5)], "overlap, or are not in order"),
    "beyond the size": ([(0, 5), (2998, 5)], "has parts beyond its end"),
    "far beyond the size": ([(1 << 32, 5)], "has parts beyond its end"),
    "more than there is": ([(0, 2500)], "tar archive"),
    "too many": ([(0, 0)] * 1_000_000, f"larger than {HEADERS_LIMIT} bytes"),
}


@pytest.mark.parametrize("kind", SENSELESS)
@pytest.mark.parametrize("form", FORMATS)
def test_a_senseless_map_of_a_sparse_file_is_refused_in_little_memory(form: str, kind: str, node: FakeNode) -> None:
    extents, said = SENSELESS[kind]
    body = FORMATS[form](extents)
    with Server({"/t": Script(body=body)}) as server:
        entry = node.entry("tree", server.url("/t"), body, extract="tar")
        del extents
        tracemalloc.start()
        try:
            ran = node.run_config(entry)
            assert tracemalloc.get_traced_memory()[1] < LIMIT
        finally:
            tracemalloc.stop()
    assert ran.code == 77
    assert said in ran.out
    assert node.files() == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_map_of_a_sparse_file_that_is_right_is_unpacked(form: str, node: FakeNode) -> None:
    body = FORMATS[form]([(10, 5), (100, 0), (150, 3), (153, 2), (SIZE, 0)])
    with Server({"/t": Script(body=body)}) as server:
        assert node.run_config(node.entry("tree", server.url("/t"), body, extract="tar")).code == 0
    expected = bytearray(SIZE)
    expected[10:15], expected[150:155] = DATA[:5], DATA[5:]
    assert (node.out / "tree/sparse").read_bytes() == expected
