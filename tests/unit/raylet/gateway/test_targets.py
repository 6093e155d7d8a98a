from __future__ import annotations

import msgspec
import pytest

from shoal_common.channel.gateway_handshake import Target, ToGcs, ToPath, ToPort, ToRaylet, decode_target, encode_target
from shoal_raylet.gateway.targets import GatewayTargets

TARGETS = GatewayTargets("/session/sockets", lambda: {"10.0.0.1", "10.0.0.2"})


@pytest.mark.parametrize(
    "target",
    [ToRaylet(), ToGcs(), ToPath("/session/sockets/w-1"), ToPort("10.0.0.2", 7000)],
    ids=lambda target: type(target).__name__,
)
def test_the_clusters_own_processes_can_be_reached(target: Target) -> None:
    assert TARGETS.refuse(target) == ""


@pytest.mark.parametrize(
    "target",
    [
        ToPath("/var/run/docker.sock"),
        ToPath("/session/sockets/../secret"),
        ToPath("/session/sockets/below/it"),
        ToPath("/session/sockets"),
        ToPath("relative"),
        ToPort("169.254.169.254", 80),
        ToPort("10.0.0.3", 7000),
        ToPort("localhost", 22),
    ],
    ids=str,
)
def test_nothing_else_can(target: Target) -> None:
    assert "is not" in TARGETS.refuse(target)


def test_targets_travel() -> None:
    for target in (ToRaylet(), ToGcs(), ToPath("/a"), ToPort("::1", 1)):
        assert decode_target(encode_target(target)) == target
    with pytest.raises(msgspec.DecodeError):
        decode_target(b"nonsense")
