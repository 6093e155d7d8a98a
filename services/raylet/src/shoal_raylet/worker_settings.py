"""What the processes of workers are told of their node when they start, and which of its files they need."""

from __future__ import annotations

import os
from pathlib import Path

from shoal_common.worker_launch import WorkerConfig
from shoal_raylet.config import RayletConfig
from shoal_raylet.workers.environments.launch import Launch


class WorkerSettings:
    """Of one node. ``host``, where other nodes reach it, and ``listens``, whether it is reached over TCP at all, are
    set before the first worker starts."""

    def __init__(self, config: RayletConfig, node_id: bytes, channel_path: Path) -> None:
        self._config = config
        self._node_id = node_id
        self._channel_path = channel_path
        self.host = config.host
        self.listens = False

    def directories(self, environments: Path) -> list[Path]:
        """Directories and files that they find at the same path in a container."""
        config = self._config
        found = [config.session_dir, environments, config.fallback_dir, config.blob_directory]
        if config.tls is not None:
            found += [config.tls.ca, config.tls.cert, config.tls.key]
        return [path.absolute() for path in found if path is not None]

    def of_worker(self, worker_id: bytes, launch: Launch) -> WorkerConfig:
        config = self._config
        return WorkerConfig(
            worker_id=worker_id,
            node_id=self._node_id,
            raylet_path=os.fspath(self._channel_path),
            gcs_address=config.gcs_address,
            cluster_id=config.cluster_id,
            token=config.token,
            session_name=config.session_name,
            session_dir=os.fspath(config.session_dir),
            host=self.host,
            listen_host=config.host if self.listens else "",
            checkpoint_directory=os.fspath(config.blob_directory or ""),
            env={name: value for name, value in config.worker_env.items() if name not in launch.environ},
            runtime_env=launch.document,
            import_paths=list(launch.import_paths),
        )
