"""``python -m shoal_common.healthcheck HOST:PORT``: exit 0 when the service there says that it is serving."""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

DEADLINE_S = 3.0


def check(address: str) -> str:
    """Why the service is not healthy, or ""."""
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
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
