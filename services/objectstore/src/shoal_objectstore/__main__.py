"""``python -m shoal_objectstore``: the service on a directory, or on a bucket."""

from __future__ import annotations

import os
import sys

import shoal_common.service.structlog_alone  # noqa: F401
from shoal_common.blob.directory import DirectoryBlobStore
from shoal_common.service.config import ConfigError, from_extra
from shoal_common.service.lifecycle import App, main
from shoal_objectstore.app import ObjectStoreApp
from shoal_objectstore.config import ObjectStoreConfig


def build(config: ObjectStoreConfig) -> App:
    """Raises: ConfigError."""
    if config.s3_endpoint:
        with from_extra("s3"):  # its client is not installed where only embedded clusters run
            from shoal_objectstore.on_bucket import ObjectStoreOnBucket, s3_settings

        return ObjectStoreOnBucket(config, s3_settings(config, os.environ))
    if config.directory is None:
        raise ConfigError("there is no place for blobs: give a directory, or an s3_endpoint")
    return ObjectStoreApp(config, DirectoryBlobStore(config.directory, config.min_free_bytes))


if __name__ == "__main__":
    sys.exit(main(ObjectStoreConfig, build))
