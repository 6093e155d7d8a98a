"""Takes out of a folder of installed libraries what running programs do not need: ``slim.py FOLDER``.

- Headers, stubs and sources, which compilers and type checkers read.
- Python sources, in favour of their bytecode: a traceback has the names and lines of a library, but does not quote it.
- Symbol tables and debug information of shared libraries, which debuggers read.
"""

from __future__ import annotations

import importlib.util
import struct
import sys
from pathlib import Path

FOR_COMPILERS = {".a", ".c", ".cpp", ".h", ".hpp", ".pxd", ".pxi", ".pyi", ".pyx", ".tp"}

#: Of a 64-bit ELF file: its mark, and where and how many its program headers and its section headers are.
ELF = b"\x7fELF\x02\x01"
ELF_HEADER = struct.Struct("<32xQQ6xHHHHH")
#: A program header's offset and length of the segment in the file.
PROGRAM_HEADER = struct.Struct("<8xQ16xQ16x")


def slim(folder: Path) -> None:
    for path in [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]:
        if path.suffix in FOR_COMPILERS:
            path.unlink()
        elif path.suffix == ".py":
            bytecode = Path(importlib.util.cache_from_source(str(path)))
            if bytecode.exists():
                bytecode.replace(path.with_suffix(".pyc"))
                path.unlink()
        elif ".so" in path.suffixes:
            cut(path)
    for cache in folder.rglob("__pycache__"):
        if not any(cache.iterdir()):
            cache.rmdir()


def cut(library: Path) -> None:
    """Cut off what lies behind the last segment; the loader needs no more.

    Nothing moves, unlike with ``strip``, after which the loader refuses libraries that were patched for a wheel.
    """
    with library.open("r+b") as file:
        header = bytearray(file.read(ELF_HEADER.size))
        if not header.startswith(ELF):
            return
        start, _sections, size, count, *_ = ELF_HEADER.unpack(header)
        end = start + size * count
        for number in range(count):
            file.seek(start + size * number)
            offset, length = PROGRAM_HEADER.unpack(file.read(PROGRAM_HEADER.size))
            end = max(end, offset + length)
        # It has no section headers any more: their place and their number.
        struct.pack_into("<Q", header, 40, 0)
        struct.pack_into("<HH", header, 60, 0, 0)
        file.seek(0)
        file.write(header)
        file.truncate(end)


if __name__ == "__main__":
    slim(Path(sys.argv[1]))
