"""How a raylet starts worker processes: the contract between ``shoal_raylet`` and ``shoal.worker``.

The warm way: the raylet runs ``python -m shoal.worker_template --control-fd N`` once. N is one end of a
``SOCK_SEQPACKET`` pair; each packet is one JSON document below. A ``ForkWorker`` packet carries two
descriptors (stdout, stderr) and is answered by ``WorkerForked``, before the worker becomes the raylet's own child
(which needs the raylet to be a child subreaper). The template has one thread and never opens a gRPC channel, so
forking is safe.

In a container (``--control-path PATH``, a socket that hands the control socket out) the workers are the template's own
children, and ``WorkerEnded`` tells how each has ended.

The plain way, when the template died or a job needs another interpreter: ``python -m shoal.worker
--config-fd N`` with a ``WorkerConfig`` document on N (read to end of file); the raylet is the parent.

The token travels in these private descriptors only, never in argv or the environment.
"""

from __future__ import annotations

import msgspec


class WorkerConfig(msgspec.Struct, frozen=True):
    """What a worker must know to reach its raylet; everything else comes over the framed channel."""

    worker_id: bytes
    node_id: bytes
    #: Unix socket of the raylet's framed channel.
    raylet_path: str
    #: gRPC address of the GCS, host:port.
    gcs_address: str
    cluster_id: str
    token: str
    session_name: str
    session_dir: str
    #: Address by which other nodes reach this one.
    host: str
    #: Where the worker listens for peers of other nodes, on a free TCP port; empty = it does not.
    listen_host: str = ""
    #: The directory of the cluster's blobs: the worker of a durable actor appends to its log there by itself. Empty =
    #: this machine does not have it, and the log is made of blobs.
    checkpoint_directory: str = ""
    #: Further environment variables for the process, e.g. {"OMP_NUM_THREADS": "1"}.
    env: dict[str, str] = {}
    #: Document of the runtime environment that the process was started in.
    runtime_env: str = ""
    #: Where that environment's own modules are: they come before the driver's.
    import_paths: list[str] = []

    def __repr__(self) -> str:
        return f"WorkerConfig(worker_id={self.worker_id.hex()!r})"  # the token stays out of every message


class ForkWorker(msgspec.Struct, frozen=True, tag=True):
    config: WorkerConfig


class WorkerForked(msgspec.Struct, frozen=True, tag=True):
    worker_id: bytes
    pid: int


class WorkerNotForked(msgspec.Struct, frozen=True, tag=True):
    """The machine gave no process."""

    worker_id: bytes
    #: For humans.
    reason: str


class WorkerEnded(msgspec.Struct, frozen=True, tag=True):
    """A worker that is the template's own child has ended."""

    worker_id: bytes
    #: As of ``subprocess``.
    exit_code: int


TemplatePacket = ForkWorker | WorkerForked | WorkerNotForked | WorkerEnded
