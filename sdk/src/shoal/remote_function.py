"""``shoal.remote_function``, as Ray's ``ray.remote_function``."""

from __future__ import annotations

from shoal._api.functions import RemoteFunction

__all__ = ["RemoteFunction"]
