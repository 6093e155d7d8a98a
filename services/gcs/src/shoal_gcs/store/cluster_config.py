"""What a cluster is: told to whoever joins it, and kept in the metadata store.

The settings of the GCS that leads hold. They are kept so that a standby with other settings does not change the cluster
unnoticed, and so that an operator can read in the store alone what the nodes were told.
"""

from __future__ import annotations

import structlog

from shoal_gcs.config import GcsConfig
from shoal_gcs.store.rows import Rows, message
from shoal_proto.v1 import gcs_pb2

ROW_ID = "cluster"

_log = structlog.get_logger()


def cluster_config(config: GcsConfig) -> gcs_pb2.GetClusterResponse:
    return gcs_pb2.GetClusterResponse(
        cluster_id=config.cluster_id,
        session_name=config.session_name,
        scheduler_addresses=config.scheduler_addresses,
        objectstore_addresses=config.objectstore_addresses,
        nats_address=config.nats_address,
    )


async def keep(rows: Rows, cluster: gcs_pb2.GetClusterResponse) -> None:
    """Returns when it is in the store; a warning names what another GCS, or this one earlier, had told differently.

    Raises: MetadataStoreError, Unavailable.
    """
    for kept in await rows.load(message(gcs_pb2.GetClusterResponse, lambda _: ROW_ID)):
        changed = changed_settings(kept, cluster)
        if not changed:
            return
        _log.warning("cluster_config_changed", settings=changed)
    await rows.put(ROW_ID, cluster.SerializeToString())


def changed_settings(before: gcs_pb2.GetClusterResponse, now: gcs_pb2.GetClusterResponse) -> list[str]:
    """Names of the settings that differ."""
    names = [field.name for field in now.DESCRIPTOR.fields]
    return [name for name in names if getattr(before, name) != getattr(now, name)]
