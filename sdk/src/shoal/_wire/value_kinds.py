"""What an object's value is, in its owner's table and on the wire."""

from __future__ import annotations

#: There is none yet; never on the wire.
PENDING = 0
#: ``payload`` is one plain pickle.
INLINE = 1
#: ``payload`` is a pickle with its out-of-band buffers (see shoal._values.serialization).
PACKED = 2
#: ``payload`` is the value itself: nobody can change ``bytes``, so that they need no pickle, nor a copy out of one.
BYTES = 7
#: It lies in the object store of ``node_id``.
STORED = 3
#: ``payload`` is the pickle of an exception.
ERROR = 4
#: The session is over in which the object was known here; never on the wire.
ENDED = 5
#: Its owner has it: ask there. Only of arguments that would make a message too large.
ASK = 6
