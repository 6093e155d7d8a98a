"""What a call to the GCS raises: one table from gRPC's status to the exception.

| status | exception |
|---|---|
| NOT_FOUND | `NotFound` |
| ALREADY_EXISTS | `AlreadyExists` |
| INVALID_ARGUMENT | `InvalidArgument` |
| UNAUTHENTICATED | `AuthenticationError` |
| any other | `RpcError` |

All but `AuthenticationError` are `RpcError`, whose ``rpc_code`` is the status's number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.exceptions import AuthenticationError, RpcError, ShoalSystemError

if TYPE_CHECKING:
    import grpc


class NotFound(RpcError):
    """The GCS knows no such thing (any more)."""


class AlreadyExists(RpcError):
    """The name is taken."""


class InvalidArgument(RpcError):
    """The request is wrong; its message says what."""


class ClientClosed(ShoalSystemError):
    """The session has ended: there is nobody to ask."""

    def __init__(self) -> None:
        super().__init__("the session has ended, and with it the way to the GCS")


_BY_STATUS: dict[str, type[RpcError]] = {
    "NOT_FOUND": NotFound,
    "ALREADY_EXISTS": AlreadyExists,
    "INVALID_ARGUMENT": InvalidArgument,
}
#: The GCS may never have heard of the call.
NO_ANSWER = frozenset({"DEADLINE_EXCEEDED", "UNAVAILABLE"})


def error_of(failed: grpc.RpcError, address: str, method: str) -> RpcError | AuthenticationError:
    """What a failed call of ``method`` to the GCS at ``address`` means here."""
    status, text = failed.code(), str(failed.details())
    if status.name == "UNAUTHENTICATED":
        return AuthenticationError(f"The cluster at {address} refused this process: {text}.")
    if status.name in NO_ANSWER:
        text = f"The GCS at {address} did not answer {method}: {text}. Ask again; `shoal status` tells more."
    return _BY_STATUS.get(status.name, RpcError)(text, status.value[0])
