"""``shoal.client("host:10001").namespace("n").connect()``: another way to write ``init``, as ``ray.client``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from shoal._session.address import GATEWAY_SCHEME
from shoal._session.session import Context, init
from shoal.job_config import JobConfig

__all__ = ["ClientBuilder", "ClientContext", "client"]

#: What ``connect`` returns is what ``init`` returns; left as a context manager, it has disconnected.
ClientContext = Context


class ClientBuilder:
    """``address``: of a gateway, "host:port"; "local" = a cluster of its own, None = what ``init()`` finds."""

    def __init__(self, address: str | None) -> None:
        self.address = address
        self._job_config = JobConfig()

    def env(self, env: Mapping[str, Any]) -> Self:
        """The job's ``runtime_env``. Raises: as ``JobConfig``."""
        self._job_config.set_runtime_env(env)
        return self

    def namespace(self, namespace: str) -> Self:
        """Of the job's named actors."""
        self._job_config.set_ray_namespace(namespace)
        return self

    def connect(self) -> ClientContext:
        """Raises: as ``init``."""
        address = self.address
        if address is not None and address != "local" and "://" not in address:
            address = GATEWAY_SCHEME + address
        return init(address, job_config=self._job_config)


def client(address: str | None = None) -> ClientBuilder:
    """As ``ClientBuilder``."""
    return ClientBuilder(address)
