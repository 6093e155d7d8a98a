"""Named objects: values that this process's job keeps under names, and results in the cluster's cache.

A value is stored first, as blobs by way of this node's raylet, and then named at the GCS: what has a name is whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal._core.object_ref import ObjectRef
from shoal._net.gcs.records import Scope
from shoal._owner.objects.values import Values
from shoal._values.serialization import Serialized, serialize, unpack
from shoal.exceptions import NamedObjectError, RpcError
from shoal_common import named_objects
from shoal_common.channel import frames
from shoal_common.kinds import BlobErrorKind

if TYPE_CHECKING:
    from shoal._owner.process import Process

#: Of results that are known by their content.
CACHE = Scope("", "")
#: The raylet has stored or read a part by then, in seconds.
_ANSWER_S = 120.0
#: What keeps the blobs may be away for so long, and is asked again after so long, in seconds.
_PATIENCE_S, _PAUSE_S = 60.0, 1.0


class NamedObjects:
    """Of one process. Every method waits, and raises NamedObjectError where it cannot be done."""

    def __init__(self, process: Process, values: Values) -> None:
        self._process = process
        self._values = values
        #: Keyed calls of this process that have not ended: what each has returned, by its key.
        self.under_way: dict[str, Any] = {}

    @property
    def scope(self) -> Scope:
        """Of this process's job. Raises: ValueError when that has no name."""
        if not self._process.job_name:
            raise ValueError("names and keys belong to a job that has a name itself: give it one, init(job=...)")
        return Scope(self._process.namespace, self._process.job_name)

    def store(self, scope: Scope, name: str, serialized: Serialized, ttl_s: float | None) -> None:
        """In place of what had the name; for ``ttl_s`` seconds, None = as long as the job is kept."""
        if serialized.contained:
            raise NamedObjectError(name, "it has references inside, whose values go with their owner: get() them first")
        data = bytearray(serialized.packed_size)
        view = memoryview(data)
        serialized.write_packed(view)
        place = named_objects.new_place(self._process.job_id)
        step = named_objects.PART_BYTES
        for part in range(named_objects.parts_of(len(data))):
            content = bytes(view[part * step : (part + 1) * step])
            self._ask(name, partial(frames.NamedObjectPut, place=place, part=part, data=content))
        try:
            self._process.gcs.named_objects.put(scope, name, place, len(data), self._process.job_id, ttl_s)
        except RpcError as error:
            raise NamedObjectError(name, error.message) from error

    def find(self, scope: Scope, name: str) -> bytes | None:
        """Its value as ``loads_packed`` takes it; None = there is none."""
        try:
            found = self._process.gcs.named_objects.get(scope, name)
        except RpcError as error:
            raise NamedObjectError(name, error.message) from error
        if found is None:
            return None
        parts = []
        for part in range(named_objects.parts_of(found.size_bytes)):
            done = self._ask(name, partial(frames.NamedObjectGet, place=found.place, part=part))
            if done is None:
                return None  # it has gone since
            parts.append(done.data)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if len(data) != found.size_bytes:
            raise NamedObjectError(name, f"{len(data)} bytes of {found.size_bytes} are there")
        return data

    def put(self, name: str, value: Any, ttl_s: float | None) -> ObjectRef[Any]:
        """As ``shoal.put``. Raises: ValueError, as ``scope``; and as ``Values.put``."""
        scope = self.scope
        ref = self._values.put(value)
        self.store(scope, name, serialize(value, "the put value"), ttl_s)
        return ref

    def get(self, name: str) -> ObjectRef[Any]:
        """As ``shoal.get_object``. Raises: ValueError."""
        scope = self.scope
        data = self.find(scope, name)
        if data is None:
            raise ValueError(
                f"There is no object named {name!r} in the job {scope.job!r} of namespace {scope.namespace!r}: nothing "
                "was put under that name and no call with that key has ended, or its time was up"
            )
        pickled, buffers = unpack(data)
        return self._values.put_serialized(Serialized(bytes(pickled), buffers, []))

    def _ask(self, name: str, make: Callable[[int], frames.Message]) -> frames.NamedObjectDone | None:
        """None = it is not there."""
        process = self._process
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            answers = process.questions.ask([process.node_id], make, _ANSWER_S)
            if not answers:
                raise NamedObjectError(name, f"the raylet did not answer in {_ANSWER_S:g} s, or is gone")
            answer: frames.NamedObjectDone = answers[0]
            if answer.error is None:
                return answer
            if answer.error is BlobErrorKind.NOT_FOUND:
                return None
            if answer.error is not BlobErrorKind.AWAY or time.monotonic() > deadline:
                raise NamedObjectError(name, answer.detail)
            time.sleep(_PAUSE_S)
