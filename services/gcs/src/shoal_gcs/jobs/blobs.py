"""What a job has spilled is deleted with the job: by the raylets that live, and here for those that have died. What an
actor has stored is deleted here, and so are packages of runtime environments that nobody uses any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import structlog

from shoal_common import named_objects
from shoal_common.blob.client import BlobClient
from shoal_common.errors import ServiceError
from shoal_common.ids import JobID
from shoal_common.rpc.client import aio_channel, retrying
from shoal_common.rpc.retry import RetryPolicy
from shoal_common.tls import Tls
from shoal_gcs.jobs.packages import drop_unused
from shoal_gcs.nodes.table import NodeTable

#: For some four minutes. What is left then is deleted if the GCS starts again within half an hour.
_POLICY = RetryPolicy(attempts=9, initial_s=1.0, maximum_s=120.0)
#: Keys in one request to delete.
_AT_ONCE = 1000
_CHECKPOINTS = "checkpoint/"

_log = structlog.get_logger()


class JobBlobs:
    """Belongs to one event loop. Without ``addresses`` of the objectstore service nobody sweeps."""

    def __init__(self, token: str, tls: Tls | None, addresses: tuple[str, ...], nodes: NodeTable) -> None:
        """Only what ``nodes`` have spilled is deleted: where two clusters have one name and one bucket, both have a
        job 1, but no node is in both."""
        self._token = token
        self._tls = tls
        self._addresses = addresses
        self._nodes = nodes

    async def sweep(self, job_id: JobID) -> None:
        """Raises nothing: what cannot be deleted is logged."""
        if not self._addresses:
            return
        async with aio_channel(",".join(self._addresses), self._token, tls=self._tls) as channel:
            delete = partial(self._delete, BlobClient(channel), f"spill/{job_id.hex()}/")
            try:
                deleted = await retrying(delete, _POLICY, on=(ServiceError,))
            except ServiceError as error:
                _log.error("blobs_not_swept", job_id=job_id.hex(), error=str(error))
                return
        if deleted:
            _log.info("blobs_swept", job_id=job_id.hex(), blobs=deleted)

    async def delete_all(self, keys: Sequence[str]) -> None:
        """These. Raises nothing, as ``sweep``: what is left goes with its job."""
        if not self._addresses:
            return
        async with aio_channel(",".join(self._addresses), self._token, tls=self._tls) as channel:
            blobs = BlobClient(channel)
            for start in range(0, len(keys), _AT_ONCE):
                try:
                    await retrying(partial(blobs.delete, keys[start : start + _AT_ONCE]), _POLICY, on=(ServiceError,))
                except ServiceError as error:
                    _log.error("blobs_not_deleted", blobs=len(keys) - start, error=str(error))
                    return

    async def delete(self, prefix: str) -> bool:
        """All with this prefix. Raises nothing: False = it cannot be done now, which is logged."""
        if not self._addresses:
            return True
        async with aio_channel(",".join(self._addresses), self._token, tls=self._tls) as channel:
            delete = partial(BlobClient(channel).delete, prefix=prefix)
            try:
                await retrying(delete, _POLICY, on=(ServiceError,))
            except ServiceError as error:
                _log.error("blobs_not_deleted", prefix=prefix, error=str(error))
                return False
        return True

    async def sweep_checkpoints(self, is_dead: Callable[[bytes], bool]) -> None:
        """Those of actors that have ended. Raises nothing, as ``sweep``."""
        if not self._addresses:
            return
        async with aio_channel(",".join(self._addresses), self._token, tls=self._tls) as channel:
            try:
                found = await retrying(partial(BlobClient(channel).list, _CHECKPOINTS), _POLICY, on=(ServiceError,))
            except ServiceError as error:
                _log.error("checkpoints_not_swept", error=str(error))
                return
        for actor_id in {_first_part(blob.key, _CHECKPOINTS) for blob in found}:
            if is_dead(actor_id):
                await self.delete(f"{_CHECKPOINTS}{actor_id.hex()}/")

    async def sweep_named_objects(self, job_id: JobID | None, is_named: Callable[[str], bool]) -> None:
        """What processes of this job, of any for None, have stored, and nobody has named. ``is_named``: a place. Raises
        nothing, as ``sweep``."""
        if not self._addresses:
            return
        prefix = named_objects.ROOT if job_id is None else f"{named_objects.ROOT}{job_id.hex()}/"
        async with aio_channel(",".join(self._addresses), self._token, tls=self._tls) as channel:
            try:
                found = await retrying(partial(BlobClient(channel).list, prefix), _POLICY, on=(ServiceError,))
            except ServiceError as error:
                _log.error("named_objects_not_swept", error=str(error))
                return
        for place in {named_objects.place_of_key(blob.key) for blob in found}:
            if not is_named(place):
                await self.delete(named_objects.prefix_of(place))

    async def sweep_packages(self, today: int, keep_days: int) -> None:
        """Packages and installed environments that nobody has used for so long. Raises nothing, as ``sweep``."""
        if not self._addresses:
            return
        async with aio_channel(",".join(self._addresses), self._token, tls=self._tls) as channel:
            try:
                await drop_unused(BlobClient(channel), today, keep_days)
            except ServiceError as error:
                _log.warning("packages_not_swept", error=str(error))

    async def _delete(self, blobs: BlobClient, prefix: str) -> int:
        """Raises: ServiceError."""
        keys = [blob.key for blob in await blobs.list(prefix) if _first_part(blob.key, prefix) in self._nodes]
        deleted = 0
        for start in range(0, len(keys), _AT_ONCE):
            deleted += await blobs.delete(keys[start : start + _AT_ONCE])
        return deleted


def _first_part(key: str, prefix: str) -> bytes:
    """The id that follows: of the node that has spilled, of the actor that was saved; empty = none of ours."""
    try:
        return bytes.fromhex(key.removeprefix(prefix).partition("/")[0])
    except ValueError:
        return b""
