"""``python -m shoal_objectstore``: the service on a directory."""

from __future__ import annotations

import sys

from shoal_common.blob.directory import DirectoryBlobStore
from shoal_common.lifecycle import main
from shoal_objectstore.app import ObjectStoreApp
from shoal_objectstore.config import ObjectStoreConfig


def build(config: ObjectStoreConfig) -> ObjectStoreApp:
    return ObjectStoreApp(config, DirectoryBlobStore(config.directory, config.min_free_bytes))


if __name__ == "__main__":
    sys.exit(main(ObjectStoreConfig, build))
