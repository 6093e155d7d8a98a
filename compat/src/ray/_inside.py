"""What libraries touch inside of Ray, beside its public names: tables to read, nothing that could be set in motion."""

from __future__ import annotations

from typing import Any, NoReturn

from ray._absence import PAGE
from shoal._session.session import Context
from shoal.runtime_context import SCRIPT_MODE, WORKER_MODE, ThisProcess
from shoal.util import get_node_ip_address


def from_pandas_refs(*args: object, **kwargs: object) -> NoReturn:
    """Raises: NotImplementedError."""
    raise NotImplementedError(f"ray.data.from_pandas_refs: Ray Data is not part of Shoal. {PAGE}")


#: Module -> its names.
INSIDE: dict[str, dict[str, Any]] = {
    "ray._private": {},
    "ray._private.services": {"get_node_ip_address": get_node_ip_address},
    "ray._private.worker": {
        "BaseContext": Context,
        "SCRIPT_MODE": SCRIPT_MODE,
        "WORKER_MODE": WORKER_MODE,
        "global_worker": ThisProcess(),
    },
    # modin imports the name whatever it is used for
    "ray.data": {"from_pandas_refs": from_pandas_refs},
}
