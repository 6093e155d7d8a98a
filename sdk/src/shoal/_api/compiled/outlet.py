"""The end of a ring at which values go in, and those of them that lie in the object store meanwhile."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from shoal._api.compiled.messages import Message
from shoal._api.compiled.ring import RingWriter
from shoal._values.serialization import Serialized, serialize
from shoal._wire.value_kinds import BYTES, ERROR, STORED

if TYPE_CHECKING:
    from shoal._core.object_ref import ObjectRef
    from shoal._owner.objects.values import Values

#: What is larger, and has no room in its slot as it is, lies in the object store: memory that is written for the first
#: time costs more than the copy, there it has been written before, and readers need no copy of their own. 100 MB
#: through two actors: 1.6 s in slots that grew, 0.05 s so. Up to here there is no difference.
STORED_BYTES = 1_000_000


class Outlet:
    """Puts messages into a ring. One thread at a time."""

    def __init__(self, ring: RingWriter, values: Values) -> None:
        self.ring = ring
        self._values = values
        #: What not every reader is known to have, with the number of messages up to and with its own.
        self._stored: deque[tuple[int, ObjectRef[Any]]] = deque()

    def placed(self, message: Message) -> Message:
        """The ring has room for one: what is to be written for ``message``.

        Raises: OSError, ObjectStoreFullError, OutOfDiskError.
        """
        if self._stored:
            self._let_go()
        kind, payload, size, _ = message
        if size <= STORED_BYTES or size <= self.ring.room or kind == ERROR:
            self.ring.reserve(size)
            return message
        if type(payload) is bytes:
            payload = serialize(payload) if kind == BYTES else Serialized(payload, [], [])
        ref = self._values.put_serialized(payload)  # type: ignore[arg-type]
        object_id = ref.binary()
        self.ring.reserve(len(object_id))
        return Message(STORED, object_id, len(object_id), ref)

    def write(self, message: Message) -> None:
        """One that was placed."""
        self.ring.write(*message[:3])
        if message.ref is not None:
            self._stored.append((self.ring.written, message.ref))

    def clear(self) -> None:
        """Nobody reads any more. From any thread."""
        self._stored = deque()

    def _let_go(self) -> None:
        """Of what every reader has read: who still uses it keeps it in the store."""
        read = self.ring.read_by_all()
        stored = self._stored
        while stored and stored[0][0] <= read:
            stored.popleft()
