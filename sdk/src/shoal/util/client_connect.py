"""``shoal.util.connect`` and ``disconnect``, as Ray's: for drivers outside of the cluster."""

from __future__ import annotations

from shoal._session.address import GATEWAY_SCHEME
from shoal._session.session import Context, init, shutdown
from shoal.job_config import JobConfig

__all__ = ["connect", "disconnect"]


def connect(conn_str: str, *, job_config: JobConfig | None = None, namespace: str | None = None) -> Context:
    """``init`` with the address of a gateway, "host:port". Raises: as ``init``."""
    return init(GATEWAY_SCHEME + conn_str.removeprefix(GATEWAY_SCHEME), job_config=job_config, namespace=namespace)


def disconnect() -> None:
    """``shutdown``."""
    shutdown()
