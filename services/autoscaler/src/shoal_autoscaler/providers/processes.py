"""Nodes as processes of this machine: ``shoal start --block`` for each, for tests and to try it out."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence

from shoal_autoscaler.plan import PROVIDER_LABEL, NodeType
from shoal_autoscaler.providers.provider import ProviderError, ProviderNode
from shoal_common.auth import TOKEN_VARIABLE

#: After SIGTERM a node has so long to leave, in seconds.
_GRACE_S = 30.0
#: Amounts that are not resources of the node's choice.
_FLAGS = {
    "CPU": "--num-cpus",
    "GPU": "--num-gpus",
    "memory": "--memory",
    "object_store_memory": "--object-store-memory",
}
_BYTES = ("memory", "object_store_memory")


class ProcessProvider:
    """They end with the autoscaler. `shoal_autoscaler.providers.provider.Provider`."""

    def __init__(self, gcs_address: str, token: str) -> None:
        self._gcs_address = gcs_address
        self._token = token
        self._nodes: dict[str, tuple[str, asyncio.subprocess.Process]] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}

    async def nodes(self) -> Sequence[ProviderNode]:
        self._nodes = {key: node for key, node in self._nodes.items() if node[1].returncode is None}
        return [ProviderNode(key, name) for key, (name, _) in self._nodes.items() if key not in self._ending]

    async def launch(self, provider_id: str, node_type: NodeType) -> None:
        amounts = node_type.resources.to_units()
        labels = {**node_type.labels, PROVIDER_LABEL: provider_id}
        command = ["--address", self._gcs_address, "--block"]
        command += ["--labels", ",".join(f"{key}={value}" for key, value in labels.items())]
        for name, flag in _FLAGS.items():
            value = amounts.pop(name, 0.0 if name in ("CPU", "GPU") else None)
            if value is not None:
                command += [flag, str(int(value)) if name in _BYTES else f"{value:g}"]
        if amounts:
            command += ["--resources", json.dumps(amounts)]
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "shoal.cli", "start", *command),
                env={**os.environ, TOKEN_VARIABLE: self._token},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            raise ProviderError(f"no node could be started: {error}") from error
        self._nodes[provider_id] = node_type.name, process

    async def terminate(self, provider_id: str) -> None:
        if provider_id in self._nodes and provider_id not in self._ending:
            ending = self._ending[provider_id] = asyncio.create_task(_end(self._nodes[provider_id][1]))
            ending.add_done_callback(lambda _: self._ending.pop(provider_id, None))

    async def close(self) -> None:
        for provider_id in list(self._nodes):
            await self.terminate(provider_id)
        if self._ending:
            await asyncio.wait(self._ending.values())


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(_GRACE_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
