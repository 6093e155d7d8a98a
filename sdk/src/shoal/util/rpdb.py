"""Breakpoints in tasks and actors, as ``ray.util.rpdb``; ``breakpoint()`` in a worker is ``set_trace()``.

The code waits until somebody attaches by ``shoal debug``. With SHOAL_DEBUG_POST_MORTEM=1 in a worker's environment it
also waits where a task or call has failed.
"""

from __future__ import annotations

from shoal._executor.debugger import Pdb, post_mortem, set_trace

__all__ = ["Pdb", "post_mortem", "set_trace"]
