"""What a submitted job prints, kept in the cluster's blobs: it outlives the job's node and every service."""

from __future__ import annotations

import hashlib

from shoal_common.blob.client import BlobClient
from shoal_common.logs.blob_log import BlobLog

#: 64 MiB.
PARTS_KEPT = 256


class JobLog(BlobLog):
    """One submission's."""

    def __init__(self, blobs: BlobClient, submission_id: str) -> None:
        digest = hashlib.sha256(submission_id.encode()).hexdigest()[:40]
        super().__init__(blobs, f"job_log/{digest}/", PARTS_KEPT)
