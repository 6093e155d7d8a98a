"""On which shard a key lies: rendezvous hashing of the entity's id. Pure.

Every shard gives the id a score and the highest wins. A shard that is added at the end of the list so takes its share
from all others, and no key moves between those: with the remainder of one hash nearly all keys would.
"""

from __future__ import annotations

from hashlib import blake2b


def shard_of(key: str, shards: int) -> int:
    """The number of a key's shard, from 0.

    Only the ``<id>`` of ``/shoal/<cluster>/<table>/<id>`` counts, so all rows of one entity lie together. Shards are
    known by their place in the list and not by their addresses, which may change.
    """
    if shards == 1:
        return 0
    entity = key.split("/", 4)[-1].encode()
    return max(range(shards), key=lambda shard: blake2b(entity, digest_size=8, salt=shard.to_bytes(8, "big")).digest())
