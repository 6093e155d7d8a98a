"""What the objectstore service is told at its start."""

# ruff: noqa: RUF009 - setting() makes a dataclass field
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from shoal_common.service.config import setting
from shoal_common.service.measured import MeasuredConfig


@dataclass(frozen=True, kw_only=True)
class ObjectStoreConfig(MeasuredConfig):
    """Shoal's objectstore service: spilled objects, checkpoints and packages as checksummed blobs."""

    SERVICE: ClassVar[str] = "objectstore"

    port: int = setting(6383, doc="port to listen on; 0 takes a free one", minimum=0, maximum=65535)
    directory: Path | None = setting(
        None, doc="where blobs are kept, one service process a directory; needed unless s3_endpoint is given"
    )
    min_free_bytes: int = setting(
        256 * 1024 * 1024, doc="stop storing when less would stay free on that disk", unit="bytes", minimum=0
    )
    cluster_id: str = setting("default", doc="name of the cluster, which the bucket then belongs to")
    s3_endpoint: str = setting(
        "",
        doc="MinIO or another S3 server that keeps the blobs instead: host:port, http://host:port or "
        "https://host:port. Without a scheme it is https when s3_ca is given",
    )
    s3_bucket: str = setting("shoal", doc="bucket there; made when there is none")
    s3_access_key_file: Path | None = setting(
        None, doc="file with the access key; without one SHOAL_S3_ACCESS_KEY is the key"
    )
    s3_secret_key_file: Path | None = setting(
        None, doc="file with the secret key; without one SHOAL_S3_SECRET_KEY is the key"
    )
    s3_ca: Path | None = setting(
        None, doc="PEM file of the authority that signed the S3 server's certificate; none = the system's authorities"
    )
    s3_direct: bool = setting(
        True,
        doc="raylets stream straight to and from the S3 server, by requests that this service signs; where they do not "
        "reach it under the name in s3_endpoint, everything goes through this service, slower",
    )
    start_timeout_s: float = setting(
        60.0, doc="a service that does not reach the S3 server for so long at its start ends", unit="seconds", minimum=0
    )
