"""ObjectService, typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shoal_proto.v1 import gcs_pb2

if TYPE_CHECKING:
    from shoal._net.gcs.calling import Calling

#: The GCS waits so long until it is certain, in seconds.
WAIT_S = 10.0
#: How much longer its answer may take, in seconds.
_ANSWER_S = 30.0


class Objects:
    """See ``client`` for what all methods raise."""

    def __init__(self, gcs: Calling) -> None:
        self._gcs = gcs

    def begin_find_lost(
        self, object_ids: list[bytes], done: Callable[[list[bytes] | None, Exception | None], None]
    ) -> None:
        """Which of 50,000 objects at most, whose home is dead, are nowhere; an error if that is not certain after
        ``WAIT_S`` seconds."""
        request = gcs_pb2.FindLostRequest(object_ids=object_ids, wait_ms=int(WAIT_S * 1000))

        def answered(response: gcs_pb2.FindLostResponse | None, error: Exception | None) -> None:
            done(None if response is None else list(response.object_ids), error)

        self._gcs.call_async("Object", "FindLost", request, answered, timeout_s=WAIT_S + _ANSWER_S)
