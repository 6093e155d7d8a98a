"""Small values between protobuf and the types that everything else speaks."""

from __future__ import annotations

from shoal_common.channel.frames import WorkerAddress
from shoal_common.kinds import ExitKind
from shoal_common.placement.resources import ResourceSet
from shoal_proto.v1 import common_pb2

_EXIT_PREFIX = "EXIT_KIND_"


def amounts(resources: ResourceSet) -> common_pb2.ResourceAmounts:
    return common_pb2.ResourceAmounts(grains=resources.grains)


def resource_set(message: common_pb2.ResourceAmounts) -> ResourceSet:
    return ResourceSet(message.grains)


def worker_address(message: common_pb2.WorkerAddress) -> WorkerAddress:
    return WorkerAddress(message.node_id, message.worker_id, message.path, message.host, message.port)


def worker_address_message(at: WorkerAddress) -> common_pb2.WorkerAddress:
    return common_pb2.WorkerAddress(
        node_id=at.node_id, worker_id=at.worker_id, path=at.path, host=at.host, port=at.port
    )


def exit_kind(message: common_pb2.WorkerExit) -> ExitKind:
    return ExitKind(common_pb2.ExitKind.Name(message.kind).removeprefix(_EXIT_PREFIX))


def worker_exit_message(kind: ExitKind, detail: str) -> common_pb2.WorkerExit:
    return common_pb2.WorkerExit(kind=common_pb2.ExitKind.Value(_EXIT_PREFIX + kind), detail=detail)
