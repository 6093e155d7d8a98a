"""Which names a worker's process writes to, by looking them up: prints them for `shoal_common.hot_names`. Takes root,
and CPython 3.11, whose strings have reference counts and this layout.

Names that it holds for a moment and lets go have the same count in both processes, and are not found here. They lie at
the addresses of page faults of a worker that starts (`perf record -e page-faults -c 1 -d -p TEMPLATE`), and stay in the
list."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shoal

PAGE = os.sysconf("SC_PAGESIZE")
#: Of an ASCII string: count, type, length, hash, state and an unused pointer; then its text.
_STRING = struct.Struct("<QQQqQQ")
_LONGEST = 40
#: What starting up has still to do.
_SETTLE_S = 3.0


class Plain:
    def where(self) -> tuple[int, int]:
        """The pid, and where the type of strings is."""
        return os.getpid(), id(str)


class Async:
    async def where(self) -> tuple[int, int]:
        await asyncio.sleep(0)
        return os.getpid(), id(str)


@shoal.remote
def task() -> tuple[int, int]:
    return os.getpid(), id(str)


def main() -> None:
    with shoal.init(num_cpus=4, log_to_driver=False, logging_level="ERROR"):
        plain: Any = shoal.remote(Plain)
        kinds: list[Any] = [plain, plain.options(max_concurrency=4), shoal.remote(Async)]
        actors = [kind.remote() for kind in kinds]
        found = shoal.get([*(actor.where.remote() for actor in actors), task.remote()])
        time.sleep(_SETTLE_S)
        template = next(
            int(path.name)
            for path in Path("/proc").glob("[0-9]*")
            if b"shoal::template" in (path / "cmdline").read_bytes() and _is_below(int(path.name), os.getpid())
        )
        names = {name for pid, string in found for name in written(pid, template, string)}
    print(" ".join(sorted(names)))


def written(pid: int, template: int, string: int) -> Iterator[str]:
    """Strings that both processes have at the same place, with another number of references in ``pid``."""
    with open(f"/proc/{pid}/mem", "rb") as mine, open(f"/proc/{template}/mem", "rb") as theirs:
        for start, end in set(_writable(pid)) & set(_writable(template)):
            mine.seek(start)
            theirs.seek(start)
            try:
                here, there = mine.read(end - start), theirs.read(end - start)
            except OSError:  # the kernel's own
                continue
            for page in range(0, len(here), PAGE):
                if here[page : page + PAGE] != there[page : page + PAGE]:
                    yield from _strings(here, there, page, string)


def _strings(here: bytes, there: bytes, page: int, string: int) -> Iterator[str]:
    for at in range(page, min(page + PAGE, len(here) - _STRING.size), 16):
        count, kind, length, *_ = _STRING.unpack_from(here, at)
        if kind == string and length <= _LONGEST and count != _STRING.unpack_from(there, at)[0]:
            text = here[at + _STRING.size : at + _STRING.size + length].decode("ascii", "replace")
            if text.replace(".", "_").isidentifier():  # of attributes and modules
                yield text


def _writable(pid: int) -> Iterator[tuple[int, int]]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        extent, mode, *_ = line.split()
        if mode.startswith("rw"):
            start, end = (int(each, 16) for each in extent.split("-"))
            yield start, end


def _is_below(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


if __name__ == "__main__":
    main()
