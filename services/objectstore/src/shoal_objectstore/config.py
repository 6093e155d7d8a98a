"""What the objectstore service is told at its start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from shoal_common.config import ServiceConfig, setting


@dataclass(frozen=True, kw_only=True)
class ObjectStoreConfig(ServiceConfig):
    """Shoal's objectstore service: spilled objects, checkpoints and packages as checksummed blobs."""

    SERVICE: ClassVar[str] = "objectstore"

    port: int = setting(6383, doc="port to listen on; 0 takes a free one", minimum=0, maximum=65535)
    directory: Path = setting(doc="where blobs are kept; one service process a directory")  # noqa: RUF009
    min_free_bytes: int = setting(
        256 * 1024 * 1024, doc="stop storing when less would stay free on that disk", unit="bytes", minimum=0
    )
