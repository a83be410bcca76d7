"""Compile ahead what the agent's modules compile at their import: regular expressions and dataclasses' methods.

Run in the freezing environment, by the Python that will be frozen, as `precompile.py SOURCES TABLES`: imports every
module below SOURCES/pxe_fetch, notes what `re` and `dataclasses` make on the way, and writes it to TABLES as a module.
The frozen agent's own `re._compiler` and `dataclasses` (see agent.spec) look there first: a quarter of the CPU time of
a run that fetches one file. What isn't found is compiled as ever.
"""

from __future__ import annotations

import builtins
import dataclasses
import importlib
import marshal
import pkgutil
import re
import sys
import types
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

# Without references to objects seen before (version 3), which depend on reference counts: the same bytes each time.
_MARSHAL_VERSION = 2


def record(package: str) -> tuple[dict[tuple[str | bytes, int], tuple[object, ...]], dict[str, bytes]]:
    """What is compiled while `package` and all below it are imported.

    The patterns by their text and flags, as arguments of `_sre.compile` (the code as bytes); the functions by their
    source, marshalled.
    """
    patterns: dict[tuple[str | bytes, int], tuple[object, ...]] = {}
    functions: dict[str, bytes] = {}
    compiler: types.ModuleType = re._compiler  # type: ignore[attr-defined]  # noqa: SLF001
    asked: list[tuple[str | bytes, int]] = []
    compile_pattern, sre = compiler.compile, compiler._sre  # noqa: SLF001

    def note_question(pattern: str | bytes, flags: int = 0) -> re.Pattern[str]:
        asked.append((pattern, int(flags)))
        made: re.Pattern[str] = compile_pattern(pattern, flags)
        return made

    def note_answer(
        pattern: str | bytes | None, flags: int, code: Sequence[int], *groups: int | Mapping[str, int] | Sequence[str]
    ) -> re.Pattern[str]:
        if pattern is not None:
            octets = b"".join(number.to_bytes(sre.CODESIZE, sys.byteorder) for number in code)
            patterns[asked[-1]] = (int(flags), octets, *groups)
        made: re.Pattern[str] = sre.compile(pattern, flags, code, *groups)
        return made

    def note_function(text: str, scope: dict[str, object], names: dict[str, object]) -> None:
        code = compile(text, "<string>", "exec", optimize=2)
        functions[text] = marshal.dumps(code, _MARSHAL_VERSION)
        builtins.exec(code, scope, names)  # noqa: S102  as dataclasses would

    compiler.compile = note_question  # type: ignore[attr-defined]
    compiler._sre = types.SimpleNamespace(**{**vars(sre), "compile": note_answer})  # type: ignore[attr-defined]  # noqa: SLF001
    dataclasses.exec = note_function  # type: ignore[attr-defined]
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, prefix=f"{package}."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
    return patterns, functions


def write(file: Path, tables: tuple[dict[tuple[str | bytes, int], tuple[object, ...]], dict[str, bytes]]) -> None:
    """Write the tables as a module. They repeat themselves: compressed they are a sixth, and inflated in 1 ms."""
    packed = zlib.compress(marshal.dumps(tables, _MARSHAL_VERSION), 9)
    text = f"import marshal, zlib\nPATTERNS, FUNCTIONS = marshal.loads(zlib.decompress({packed!r}))\n"
    file.write_text(text, encoding="ascii")


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    write(Path(sys.argv[2]), record("pxe_fetch"))
