"""``shoal.util.kv``: a small map in the metadata store."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from support.gcs import Cluster
from support.processes import PATIENCE_S

import shoal
from shoal.autoscaler.sdk import request_resources
from shoal.exceptions import VersionConflictError
from shoal.util import kv
from shoal_common.placement import requested
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc


def test_it_is_a_map_with_versions(cluster: None) -> None:
    assert kv.get("leader") is None
    first = kv.put("leader", b"me")
    assert kv.get("leader") == kv.Entry(b"me", first)
    second = kv.put("leader", bytearray(b"still me"), expected_version=first)
    assert second > first
    with pytest.raises(VersionConflictError) as refused:
        kv.put("leader", b"you", expected_version=first)
    assert (refused.value.key, refused.value.expected, refused.value.actual) == ("leader", first, second)
    with pytest.raises(VersionConflictError, match=r"is at version .*, not 0 as expected\. Read it again"):
        kv.put("leader", b"you", expected_version=0)
    assert kv.get("leader", namespace="another") is None
    with pytest.raises(VersionConflictError):
        kv.delete("leader", expected_version=first)
    assert kv.delete("leader", expected_version=second)
    assert not kv.delete("leader", expected_version=second)
    assert not kv.delete("leader")
    assert kv.put("leader", b"", expected_version=0) > second
    assert kv.get("leader") is not None, "an empty value is one"
    kv.put("a/b c\u00e4%", b"x" * 512 * 1024)
    assert kv.get("a/b c\u00e4%") is not None
    assert kv.get("a") is None
    kv.put("short", b"x", ttl_s=1)
    found = kv.get("short")
    assert found is not None
    assert kv.watch("short", found.version, timeout_s=PATIENCE_S) is None, "its time is over"


def test_a_watch_sees_what_tasks_write(cluster: None) -> None:
    @shoal.remote
    def write(value: bytes) -> int:
        return kv.put("news", value)

    seen: list[kv.Entry | None] = []
    thread = threading.Thread(target=lambda: seen.append(kv.watch("news", timeout_s=PATIENCE_S)))
    thread.start()
    version = shoal.get(write.remote(b"1"))
    thread.join()
    assert seen == [kv.Entry(b"1", version)]
    assert kv.watch("news") == seen[0], "a version that is not the known one is there at once"
    with pytest.raises(TimeoutError, match="'news' had not changed within 0 s"):
        kv.watch("news", version, timeout_s=0)
    other = kv.put("news", b"2")
    assert kv.watch("news", version) == kv.Entry(b"2", other)
    kv.delete("news")
    assert kv.watch("news", other) is None


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: kv.put("", b""), ValueError, "a key has 1 to 512 bytes as UTF-8, and this one 0"),
        (lambda: kv.get("\u00e4" * 300), ValueError, "and this one 600"),
        (lambda: kv.get(b"k"), TypeError, "a key is a string, not bytes"),
        (lambda: kv.put("k", "text"), TypeError, "a value is bytes, not str"),
        (lambda: kv.put("k", b"x" * (512 * 1024 + 1)), ValueError, "has 524289 bytes, more than 524288"),
        (lambda: kv.put("k", b"", ttl_s=0), ValueError, "ttl_s must be a number of seconds above 0"),
        (lambda: kv.put("k", b"", expected_version=-1), ValueError, "a version is a number from an earlier call"),
    ],
)
def test_bad_arguments(cluster: None, call: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()  # type: ignore[operator]


async def test_a_write_that_is_asked_for_again_counts_once(tmp_path: Path) -> None:
    async with Cluster(tmp_path / "gcs.sqlite") as cluster:
        stub = rpc.KvServiceStub(cluster.channel)
        request = pb.PutKvRequest(namespace="n", key="k", value=b"v", expected_version=0, write_id=b"1")
        first = await stub.PutKv(request)
        again = await stub.PutKv(request)
        assert (again.version, again.refused) == (first.version, False)
        request.write_id = b"2"
        assert (await stub.PutKv(request)).refused


async def test_what_is_in_an_anonymous_namespace_goes_with_its_job(tmp_path: Path) -> None:
    async with Cluster(tmp_path / "gcs.sqlite") as cluster:
        stub = rpc.KvServiceStub(cluster.channel)
        own = await cluster.jobs.StartJob(pb.StartJobRequest(driver_id=b"a" * 16))
        named = await cluster.jobs.StartJob(pb.StartJobRequest(driver_id=b"b" * 16, namespace="mine"))
        for job in (own, named):
            await stub.PutKv(pb.PutKvRequest(namespace=job.namespace, key="k", value=b"v"))
            await cluster.finish(job.job_id)
        gone = pb.WatchKvRequest(namespace=own.namespace, key="k", wait_ms=30_000)
        gone.known_version = (await stub.GetKv(pb.GetKvRequest(namespace=own.namespace, key="k"))).version
        if gone.known_version:
            assert not (await stub.WatchKv(gone)).version
        assert (await stub.GetKv(pb.GetKvRequest(namespace="mine", key="k"))).value == b"v"


def test_room_that_a_program_asks_for_lies_where_an_autoscaler_finds_it(cluster: None) -> None:
    def asked() -> list[requested.Bundle]:
        entry = kv.get(requested.KEY, namespace=requested.NAMESPACE)
        assert entry is not None
        return requested.decode(entry.value)

    request_resources(num_cpus=3, bundles=[{"GPU": 1}, {"CPU": 1}], bundle_label_selectors=[{"zone": "a"}, {}])
    assert asked() == [requested.Bundle({"CPU": 1.0}, {}, 4), requested.Bundle({"GPU": 1.0}, {"zone": "a"})]
    request_resources(num_cpus=0)
    assert asked() == []
    with pytest.raises(ValueError, match="more than 524288"):
        request_resources(bundles=[{f"r{i}": 1.0} for i in range(20_000)])
