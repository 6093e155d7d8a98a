"""GPUs: which ones a node hands out, and which ones a worker lets its code see. Environments come as arguments."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from itertools import takewhile

#: What CUDA, and everything on top of it, looks at.
VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
#: "1": what was granted no GPU sees none. Otherwise it sees what the node's process does.
OVERRIDE_ON_ZERO_VARIABLE = "SHOAL_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
#: "1": the variable stays as the node has it, whatever is granted; a program chooses by ``get_gpu_ids()``.
NOSET_VARIABLE = "SHOAL_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"
#: As CUDA reads the list: what comes behind one of these is not seen.
_NONE = ("", "-1", "NoDevFiles")


def node_gpu_ids(count: int, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Of a node with ``count`` GPUs: the first of those that its environment lets it see; without a word there, 0 to
    ``count`` - 1.

    Raises: ValueError when fewer are to be seen.
    """
    visible = environ.get(VISIBLE_VARIABLE)
    if visible is None:
        return tuple(map(str, range(count)))
    ids = list(dict.fromkeys(takewhile(lambda name: name not in _NONE, map(str.strip, visible.split(",")))))
    if len(ids) < count:
        raise ValueError(
            f"A node cannot have {count} GPUs where {VISIBLE_VARIABLE} lets {len(ids)} be seen: {visible!r}. Ask for "
            "fewer, or change the variable"
        )
    return tuple(ids[:count])


def show(granted: Sequence[str], environ: MutableMapping[str, str]) -> None:
    """A worker was granted these."""
    if environ.get(NOSET_VARIABLE) == "1":
        return
    if granted or environ.get(OVERRIDE_ON_ZERO_VARIABLE) == "1":
        environ[VISIBLE_VARIABLE] = ",".join(granted)
