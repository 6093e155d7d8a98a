"""Each shard knows which shard of which cluster it is.

Keys are found by their shard's place in a list that somebody writes into settings. A wrong order, a missing shard or
one of another cluster would hide rows and scatter new ones, so the list is compared with what the shards remember.
An etcd cluster belongs to one Shoal cluster.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

import msgspec
from aetcd import rpc

from shoal_common.metadata.etcd_fence import EPOCH_KEY, epoch_value
from shoal_common.metadata.etcd_shard import EtcdShard
from shoal_common.metadata.store import StoreRefused

MARKER_KEY = b"/shoal/shard"


class Marker(msgspec.Struct, frozen=True):
    """The value of ``/shoal/shard``, as JSON."""

    #: As the GCS is told it.
    cluster_id: str
    #: Random, of this set of shards: clusters have the same name when nobody gives them one.
    uid: str
    #: Place of this shard in the list, from 0.
    index: int
    #: Number of shards in the list.
    count: int
    #: Every shard has its marker. Of shard 0 only.
    complete: bool = False


async def check_markers(shards: Sequence[EtcdShard], cluster_id: str) -> None:
    """Mark empty shards as this cluster's, and compare all others with the list.

    Several processes may do so at once: the first one decides. Raises: StoreRefused, MetadataStoreError.
    """
    # Shard 0 is marked first and completed last, so what is lost shows only in one order of reads: another one marked,
    # then shard 0 empty; or shard 0 complete, then another one empty. Read together, shards that somebody is marking
    # just now may look so too.
    first = await _read(shards[0])
    if first is None:
        others = await _read_others(shards, cluster_id)
        first = await _read(shards[0])
        if first is None and any(others):
            raise _lost(shards, 0)
    if first is None:
        first = await _mark(shards[0], Marker(cluster_id, secrets.token_hex(8), 0, len(shards)))
    _compare(shards, 0, first, cluster_id)
    others = await _read_others(shards, cluster_id)
    for index, (shard, marker) in enumerate(zip(shards[1:], others, strict=True), 1):
        if marker is None:
            if first.complete:
                raise _lost(shards, index)
            marker = await _mark(shard, Marker(cluster_id, first.uid, index, len(shards)))
            _compare(shards, index, marker, cluster_id)
        if marker.uid != first.uid:
            raise StoreRefused(
                f"{shards[0].name} and {shard.name} belong to different clusters, both named {cluster_id!r}: "
                "correct the list of shards"
            )
    if not first.complete:
        complete = msgspec.structs.replace(first, complete=True)
        await shards[0].transaction(rpc.TxnRequest(success=[_put(MARKER_KEY, msgspec.json.encode(complete))]))


async def _read_others(shards: Sequence[EtcdShard], cluster_id: str) -> list[Marker | None]:
    """The markers of all shards but the first one, compared with the list."""
    markers = await asyncio.gather(*(_read(shard) for shard in shards[1:]))
    for index, marker in enumerate(markers, 1):
        if marker is not None:
            _compare(shards, index, marker, cluster_id)
    return markers


def _compare(shards: Sequence[EtcdShard], index: int, marker: Marker, cluster_id: str) -> None:
    name = shards[index].name
    if marker.cluster_id != cluster_id:
        raise StoreRefused(
            f"{name} belongs to the cluster {marker.cluster_id!r}, and this one is {cluster_id!r}: give each cluster "
            "etcd servers of its own, or correct the cluster id"
        )
    if marker.count != len(shards):
        raise StoreRefused(
            f"{name} is one of {marker.count} shards, and the list has {len(shards)}: list all of them. Their "
            "number is fixed when the cluster is first started"
        )
    if marker.index != index:
        raise StoreRefused(
            f"{name} is shard {marker.index} of its cluster (counted from 0), and is listed as shard {index}: correct "
            "the order of the list"
        )


def _lost(shards: Sequence[EtcdShard], index: int) -> StoreRefused:
    return StoreRefused(
        f"{shards[index].name} is empty, and the other shards of the list are not: it has lost its data, or is not the "
        "right one. Restore it from a backup or correct the list of shards; to begin a new cluster, empty all shards"
    )


async def _read(shard: EtcdShard) -> Marker | None:
    entry = await shard.get(MARKER_KEY.decode())
    if entry is None:
        return None
    try:
        return msgspec.json.decode(entry.value, type=Marker)
    except msgspec.MsgspecError as error:
        raise StoreRefused(f"{shard.name} has a key {entry.key} that Shoal did not write: {error}") from error


async def _mark(shard: EtcdShard, marker: Marker) -> Marker:
    """The marker that the shard has then: ours, unless somebody else was faster."""
    absent = rpc.Compare(key=MARKER_KEY, target=rpc.Compare.CREATE, result=rpc.Compare.EQUAL, create_revision=0)
    await shard.transaction(
        rpc.TxnRequest(
            compare=[absent],
            success=[_put(MARKER_KEY, msgspec.json.encode(marker)), _put(EPOCH_KEY, epoch_value(0))],
        )
    )
    return await _read(shard) or marker


def _put(key: bytes, value: bytes) -> Any:
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value))
