"""The autoscaler: looks, plans, and lets the provider do it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Sequence

import structlog

from shoal_autoscaler.cluster import Cluster
from shoal_autoscaler.config import AutoscalerConfig, read_node_types
from shoal_autoscaler.measurements import Measurements
from shoal_autoscaler.plan import Plan, Started, View, plan
from shoal_autoscaler.providers.provider import Provider, ProviderError
from shoal_common.bus import EventBus, EventBusError
from shoal_common.bus.connect import connect_bus
from shoal_common.errors import ServiceError
from shoal_common.service.config import ConfigError, from_extra
from shoal_common.service.metrics import Sample

#: After a provider's failure it is asked again after so long, twice as long each time, at most: seconds.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 60.0

_log = structlog.get_logger()


class AutoscalerApp:
    """`shoal_common.service.lifecycle.App`."""

    def __init__(self, config: AutoscalerConfig) -> None:
        self._config = config
        self._types = read_node_types(config.node_types)
        self._provider = _provider(config)
        #: When what the provider has was seen first, by its id.
        self._seen: dict[str, float] = {}
        self._unmet: list[str] = []
        self._measurements = Measurements(self._types)
        self._pause_s = 0.0
        self._bus: EventBus
        self._cluster: Cluster
        self._running: asyncio.Task[None]
        self.address = ""

    def samples(self) -> Iterator[Sample]:
        """What Prometheus reads."""
        return self._measurements.samples()

    async def start(self) -> None:
        """Raises: EventBusError, when NATS does not answer. A GCS that is away is waited for."""
        config = self._config
        self._bus = await connect_bus(config, config.gcs_address)
        self._cluster = Cluster(config.gcs_address, config.token, config.tls, self._bus)
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._running.cancel()
        await asyncio.wait([self._running])
        await self._provider.close()
        await self._cluster.close()
        await self._bus.close()

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
                self._pause_s = 0.0
            except (ServiceError, ProviderError, EventBusError) as error:
                self._measurements.failures += 1
                self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
                _log.warning("autoscaler_waits", seconds=self._pause_s, reason=str(error))
            await asyncio.sleep(max(self._config.interval_s, self._pause_s))

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        view = await self._cluster.view(await self._started(now), now)
        made = plan(view, self._types, self._config.limits, now)
        self._measurements.looked(view, made)
        self._tell(view, made)
        for name in made.launch:
            provider_id = f"{name}-{secrets.token_hex(4)}"
            await self._provider.launch(provider_id, self._types[name])
            self._seen[provider_id] = now
            self._measurements.launched[name] += 1
        for node_id in made.drain:
            await self._cluster.drain(node_id, "the autoscaler found it idle")
            self._measurements.drained += 1
        for provider_id in made.terminate:
            await self._provider.terminate(provider_id)
            self._measurements.terminated += 1

    async def _started(self, now: float) -> Sequence[Started]:
        nodes = await self._provider.nodes()
        self._seen = {node.provider_id: self._seen.get(node.provider_id, now) for node in nodes}
        return [Started(node.provider_id, node.type_name, self._seen[node.provider_id]) for node in nodes]

    def _tell(self, view: View, made: Plan) -> None:
        if made.launch or made.drain or made.terminate:
            drained = [node_id.hex() for node_id in made.drain]
            waiting = [f"{demand.count} × {demand.resources.to_units()}" for demand in view.demands]
            waiting += [f"a placement group of {len(group.bundles)} bundles" for group in view.groups]
            _log.info("nodes_change", start=made.launch, drain=drained, end=made.terminate, waiting=waiting)
        if made.unmet != self._unmet:
            self._unmet = made.unmet
            if made.unmet:
                _log.warning("no_kind_of_node_holds", demands=made.unmet, kinds=list(self._types))


def _provider(config: AutoscalerConfig) -> Provider:
    if config.provider == "docker":
        with from_extra("docker"):
            from shoal_autoscaler.providers.containers import DockerProvider

        return DockerProvider(config.docker_template, config.docker_project)
    if config.provider == "processes":
        from shoal_autoscaler.providers.processes import ProcessProvider

        return ProcessProvider(config.gcs_address, config.token)
    raise ConfigError(f"--provider must be docker or processes, not {config.provider!r}")
