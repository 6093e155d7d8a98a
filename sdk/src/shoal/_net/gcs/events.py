"""EventService, typed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import grpc

from shoal._net.gcs.errors import ClientClosed, error_of
from shoal_proto.v1 import gcs_pb2

if TYPE_CHECKING:
    from shoal._net.gcs.calling import Calling


class Subscription:
    """Iterates over (subject, data) until it is cancelled or breaks with its GCS: what happens before the next one is
    missed. Iterating raises `RpcError` when it broke."""

    def __init__(self, gcs: Calling, patterns: Sequence[str]) -> None:
        self._address = gcs.address
        try:
            self._call = gcs.stub("Event").Subscribe(gcs_pb2.SubscribeRequest(patterns=patterns))
        except ValueError as error:  # closed meanwhile
            raise ClientClosed() from error

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        try:
            for event in self._call:
                if event.subject:  # the first one says that it is subscribed
                    yield event.subject, event.data
        except grpc.RpcError as error:
            raise error_of(error, self._address, "Subscribe") from None

    def cancel(self) -> None:
        self._call.cancel()


class Events:
    """See ``client`` for what all methods raise."""

    def __init__(self, gcs: Calling) -> None:
        self._gcs = gcs

    def publish(self, subject: str, data: bytes, timeout_s: float | None = None) -> None:
        event = gcs_pb2.Event(subject=subject, data=data)
        self._gcs.call("Event", "Publish", gcs_pb2.PublishRequest(event=event), timeout_s)

    def subscribe(self, *patterns: str) -> Subscription:
        return Subscription(self._gcs, patterns)
