from __future__ import annotations

from support.memory_blobs import MemoryBlobs

from shoal_common.blob.last_used import mark
from shoal_gcs.jobs.packages import drop_unused


async def test_only_what_nobody_has_used_for_days_goes() -> None:
    blobs = MemoryBlobs()
    blobs.blobs = dict.fromkeys(
        [
            *("package/old/0", "package/old/size", mark("package/old", 1)),
            *("package/used/0", mark("package/used", 1), mark("package/used", 5)),
            *("package/of-before/0", "environment/old/size", mark("environment/old", 2)),
            "checkpoint/old/0",
        ],
        b"",
    )
    await drop_unused(blobs, today=10, keep_days=7)
    places = {"/".join(key.split("/")[:2]) for key in blobs.blobs}
    assert places == {"package/used", "package/of-before", "checkpoint/old"}
    await drop_unused(blobs, today=18, keep_days=7)
    assert [key for key in blobs.blobs if not key.startswith("checkpoint/")] == []


async def test_what_is_asked_for_meanwhile_stays() -> None:
    class Asked(MemoryBlobs):
        async def list(self, prefix=""):  # type: ignore[no-untyped-def]
            if prefix == "package/old/":
                self.blobs[mark("package/old", 10)] = b""
            return await super().list(prefix)

    blobs = Asked()
    blobs.blobs = {"package/old/0": b"", mark("package/old", 1): b""}
    await drop_unused(blobs, today=10, keep_days=7)
    assert "package/old/0" in blobs.blobs
