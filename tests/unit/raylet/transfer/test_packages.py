"""Packages count as used as long as somebody is there who has asked for them."""

from __future__ import annotations

from typing import Any

from support.memory_blobs import MemoryBlobs

from shoal_common.blob.last_used import DAY_S, find, mark
from shoal_common.channel import frames
from shoal_common.errors import Unavailable
from shoal_raylet.transfer.packages import Packages

DIGEST = "a" * 64


class Asking:
    worker_id = b"w" * 16

    def __init__(self) -> None:
        self.answers: list[Any] = []

    def send(self, message: Any) -> None:
        self.answers.append(message)


async def test_what_is_used_is_marked_once_a_day() -> None:
    blobs, now, connected = MemoryBlobs(), DAY_S, {Asking.worker_id}
    packages = Packages(blobs, lambda: now)
    asking: Any = Asking()
    packages.handlers[frames.PackageFind](asking, frames.PackageFind(1, DIGEST))
    packages.handlers[frames.PackagePut](asking, frames.PackagePut(2, DIGEST, 0, b"data"))
    await packages._background.wait()
    assert sorted(blobs.blobs) == [f"package/{DIGEST}/0", mark(f"package/{DIGEST}", 1)]
    now = 9 * DAY_S
    await packages.renew(connected.__contains__, {"environment/x"})
    assert find(blobs.blobs, today=9, keep_days=0).old == []
    del blobs.blobs[mark("environment/x", 9)]
    await packages.renew(connected.__contains__, {"environment/x"})
    assert mark("environment/x", 9) not in blobs.blobs, "once a day"
    connected.clear()
    now = 10 * DAY_S
    await packages.renew(connected.__contains__, {"environment/x"})
    assert find(blobs.blobs, today=10, keep_days=0).old == [f"package/{DIGEST}"]


async def test_what_cannot_be_marked_is_marked_later() -> None:
    blobs = MemoryBlobs()
    packages = Packages(blobs, lambda: 0.0)
    blobs.failure = Unavailable("away")
    await packages.used(["package/x"])
    blobs.failure = None
    await packages.used(["package/x"])
    assert list(blobs.blobs) == [mark("package/x", 0)]
