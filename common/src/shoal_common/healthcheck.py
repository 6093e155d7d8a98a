"""``python -m shoal_common.healthcheck HOST:PORT``: exit 0 when the service there says that it is serving.

With mutual TLS it asks as the process does in whose environment it runs.
"""

from __future__ import annotations

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from shoal_common.grpc_channel import sync_channel
from shoal_common.tls import Tls, TlsError

DEADLINE_S = 3.0


def check(address: str) -> str:
    """Why the service is not healthy, or ""."""
    try:
        tls = Tls.from_environ(os.environ)
    except TlsError as error:
        return str(error)
    # The health service asks for no token.
    with sync_channel(address, "", tls=tls) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
        except grpc.RpcError as error:
            return f"{address} does not answer: {error.code().name}: {error.details()}"
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        return f"{address} is {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}"
    return ""


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        print("usage: python -m shoal_common.healthcheck HOST:PORT", file=sys.stderr)
        return 2
    reason = check(argv[0])
    if reason:
        print(reason, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
