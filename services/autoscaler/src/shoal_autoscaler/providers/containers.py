"""Nodes as containers, made like those of a service of a Compose project, through the Docker socket."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import requests
import structlog
from docker import DockerClient
from docker.errors import DockerException

from shoal_autoscaler.plan import PROVIDER_LABEL, NodeType
from shoal_autoscaler.providers.provider import ProviderError, ProviderNode

_SERVICE = "com.docker.compose.service"
_PROJECT = "com.docker.compose.project"
_NODE, _TYPE = "io.shoal.autoscaler.node", "io.shoal.autoscaler.type"
#: After SIGTERM a node has so long to leave, in seconds.
_GRACE_S = 30
#: The engine has answered by then, in seconds.
_DEADLINE_S = 60

_log = structlog.get_logger()

T = TypeVar("T")


class DockerProvider:
    """They outlive the autoscaler, which finds them again. `shoal_autoscaler.providers.provider.Provider`."""

    def __init__(self, template: str, project: str) -> None:
        self._template = template
        self._project = project
        self._client: Any = None
        self._ending: dict[str, asyncio.Task[None]] = {}

    async def nodes(self) -> Sequence[ProviderNode]:
        return [each for each in await self._ask(self._list) if each.provider_id not in self._ending]

    async def launch(self, provider_id: str, node_type: NodeType) -> None:
        await self._ask(lambda: self._launch(provider_id, node_type))

    async def terminate(self, provider_id: str) -> None:
        if provider_id not in self._ending:
            ending = self._ending[provider_id] = asyncio.create_task(self._end(provider_id))
            ending.add_done_callback(lambda _: self._ending.pop(provider_id, None))

    async def _end(self, provider_id: str) -> None:
        """Leaving takes a node its time. What was not ended is there still, and is ended again."""
        try:
            await self._ask(lambda: self._terminate(provider_id))
        except ProviderError as error:
            _log.warning("node_not_ended", provider_id=provider_id, reason=str(error))

    async def close(self) -> None:
        if self._ending:
            await asyncio.wait(self._ending.values())
        if self._client is not None:
            self._client.close()

    async def _ask(self, question: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(question)
        except (DockerException, requests.RequestException, OSError) as error:
            raise ProviderError(f"Docker: {error}") from error

    @property
    def _docker(self) -> Any:
        if self._client is None:
            self._client = DockerClient.from_env(timeout=_DEADLINE_S)
        if not self._project:
            own = self._client.containers.get(socket.gethostname())
            self._project = own.labels.get(_PROJECT, "")
        return self._client

    def _list(self) -> Sequence[ProviderNode]:
        client = self._docker
        labels = [_NODE, f"{_PROJECT}={self._project}"]
        found = client.containers.list(filters={"label": labels, "status": ["created", "running"]}, ignore_removed=True)
        return [ProviderNode(each.labels[_NODE], each.labels[_TYPE]) for each in found]

    def _launch(self, provider_id: str, node_type: NodeType) -> None:
        """A container with the template's image, files, networks and limits, and settings of its own."""
        client = self._docker
        alike = client.containers.list(
            all=True, filters={"label": [f"{_PROJECT}={self._project}", f"{_SERVICE}={self._template}"]}
        )
        if not alike:
            raise ProviderError(
                f"there is no container of the service {self._template!r} in the Compose project {self._project!r} "
                "that a node could be made like"
            )
        model = client.api.inspect_container(alike[0].id)
        config, host = model["Config"], model["HostConfig"]
        settings = {
            "SHOAL_RAYLET_LABELS": json.dumps({**node_type.labels, PROVIDER_LABEL: provider_id}),
            "SHOAL_RAYLET_RESOURCES": json.dumps(node_type.resources.to_units()),
        }
        kept = [each for each in config["Env"] if each.partition("=")[0] not in settings]
        first, *others = model["NetworkSettings"]["Networks"]
        made = client.api.create_container_from_config(
            {
                "Image": config["Image"],
                "Cmd": config["Cmd"],
                "Entrypoint": config["Entrypoint"],
                "User": config["User"],
                "Healthcheck": config.get("Healthcheck"),
                "Env": [*kept, *(f"{name}={value}" for name, value in settings.items())],
                # Compose's own service label is left out: it would take the container for one of its replicas.
                "Labels": {_PROJECT: self._project, _NODE: provider_id, _TYPE: node_type.name},
                "HostConfig": {**host, "RestartPolicy": {"Name": "no"}, "AutoRemove": True, "NetworkMode": first},
            },
            name=f"{self._project}-{provider_id}",
        )
        for network in others:
            client.api.connect_container_to_network(made["Id"], network)
        client.api.start(made["Id"])

    def _terminate(self, provider_id: str) -> None:
        for each in self._docker.containers.list(filters={"label": f"{_NODE}={provider_id}"}, ignore_removed=True):
            each.stop(timeout=_GRACE_S)
