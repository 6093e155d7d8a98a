"""Child subreapers: a process whose descendants become its children when their parent has died, instead of init's."""

from __future__ import annotations

import ctypes
import os

_PR_SET_CHILD_SUBREAPER = 36
#: Looked up once, by the template for all its workers.
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def become_subreaper() -> None:
    """From now on, for this process. Raises: OSError when the kernel refuses."""
    if _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(ctypes.get_errno())}")
