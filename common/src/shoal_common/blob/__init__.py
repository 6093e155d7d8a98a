"""Blobs that outlive a process: spilled objects, actor checkpoints, runtime_env packages."""

from shoal_common.blob.store import CHUNK_BYTES, BlobInfo, BlobStore, check_key, check_prefix

__all__ = ["CHUNK_BYTES", "BlobInfo", "BlobStore", "check_key", "check_prefix"]
