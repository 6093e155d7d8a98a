"""``shoal.util.pdb.set_trace()``, as ``ray.util.pdb``: see ``shoal.util.rpdb``."""

from __future__ import annotations

from shoal._executor.debugger import post_mortem, set_trace

__all__ = ["post_mortem", "set_trace"]
