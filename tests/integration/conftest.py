from __future__ import annotations

from collections.abc import Iterator

import pytest
from minio import Minio
from support.outside import impatient, outside
from support.servers import MinioServer, running
from support.sessions import cluster, no_cluster

__all__ = ["cluster", "impatient", "no_cluster", "outside"]


@pytest.fixture(scope="module")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    server = MinioServer(tmp_path_factory.mktemp("minio"))
    with running(server):
        yield server


@pytest.fixture
def minio(minio_server: MinioServer) -> Minio:
    return minio_server.client()
