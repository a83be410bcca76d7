"""Random changes to an input: of bytes, of numbers, of stretches, of words."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

_NUMBERS = (0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_LARGEST_GROWTH = 1 << 20  # bytes by which one change makes an input longer


def mutated(data: bytes, *, random: Random, spans: Sequence[tuple[int, int]], words: Sequence[bytes]) -> bytes:
    """`data` with one to eight changes, most of them in `spans` (start and end); `words` are inserted into texts."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        _change(changed, random, spans, words)
    return bytes(changed)


def _change(data: bytearray, random: Random, spans: Sequence[tuple[int, int]], words: Sequence[bytes]) -> None:
    at = _place(data, random, spans)
    kind = random.randrange(12 if words else 8)
    if kind <= 1 and data:
        data[at] = random.randrange(256)
    elif kind == 2 and data:
        data[at] ^= 1 << random.randrange(8)
    elif kind <= 4:
        width = random.choice((1, 2, 4, 8))
        value = random.choice((*_NUMBERS, len(data), random.getrandbits(8 * width))) & (1 << 8 * width) - 1
        data[at : at + width] = value.to_bytes(width, random.choice(("little", "little", "big")))
    elif kind == 5:
        other, size = _place(data, random, spans), random.choice((4, 16, 64, 2048))
        data[at : at + size] = data[other : other + size]
    elif kind == 6:
        del data[at : at + random.choice((1, 4, 100, 5000, len(data)))]
    elif kind == 7:
        stretch = bytes(data[at : at + random.choice((1, 4, 32, 512))])
        data[at:at] = stretch * min(random.choice((1, 2, 100, 10_000)), _LARGEST_GROWTH // max(len(stretch), 1))
    else:
        word = random.choice(words)
        data[at:at] = word * (random.choice((1, 1, 1, 2, 50, 20_000)) if len(word) < 20 else 1)


def _place(data: bytearray, random: Random, spans: Sequence[tuple[int, int]]) -> int:
    if spans and random.random() < 0.9:
        start, end = random.choice(spans)
        return min(random.randrange(start, max(end, start + 1)), max(len(data) - 1, 0))
    return random.randrange(max(len(data), 1))
