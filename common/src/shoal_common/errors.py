"""The errors of the services, and the one table between them and gRPC.

| class | gRPC status | what the caller should do |
|---|---|---|
| `InvalidRequest` | INVALID_ARGUMENT | correct the request; a repeat fails too |
| `NotFound` | NOT_FOUND | the thing does not exist (any more) |
| `AlreadyExists` | ALREADY_EXISTS | use the one that exists, or another name |
| `PreconditionFailed` | FAILED_PRECONDITION | the state forbids it; read the state again |
| `Conflict` | ABORTED | somebody else was faster; read again and repeat |
| `Unauthenticated` | UNAUTHENTICATED | use the cluster's token |
| `ResourceExhausted` | RESOURCE_EXHAUSTED | repeat later, or elsewhere |
| `OutOfDisk` | RESOURCE_EXHAUSTED | free disk space |
| `DataLoss` | DATA_LOSS | use another copy, or recompute |
| `Unavailable` | UNAVAILABLE | repeat with backoff |
| `DeadlineExceeded` | DEADLINE_EXCEEDED | the outcome is unknown; repeat if the call is idempotent |
| `Cancelled` | CANCELLED | nothing; the caller cancelled it itself |
| `InternalError` | INTERNAL | a defect: look into the service's log |

Over the wire the status carries the code and the text, and the trailing metadata ``shoal-error`` names the class,
so that two classes may share a status. This module does not import grpc; ``grpc_server`` and ``grpc_channel`` do.
"""

from __future__ import annotations

from typing import ClassVar

#: Trailing metadata key that names the error's class.
ERROR_METADATA_KEY = "shoal-error"


class ServiceError(Exception):
    """Base of all errors that a service answers with. The only argument is the message for humans."""

    #: Name of its ``grpc.StatusCode``.
    status: ClassVar[str] = "INTERNAL"


class InvalidRequest(ServiceError):
    status = "INVALID_ARGUMENT"


class NotFound(ServiceError):
    status = "NOT_FOUND"


class AlreadyExists(ServiceError):
    status = "ALREADY_EXISTS"


class PreconditionFailed(ServiceError):
    status = "FAILED_PRECONDITION"


class Conflict(ServiceError):
    status = "ABORTED"


class Unauthenticated(ServiceError):
    status = "UNAUTHENTICATED"


class ResourceExhausted(ServiceError):
    status = "RESOURCE_EXHAUSTED"


class OutOfDisk(ResourceExhausted):
    """The disk behind the blob store is full, or would be with this blob."""


class DataLoss(ServiceError):
    status = "DATA_LOSS"


class Unavailable(ServiceError):
    status = "UNAVAILABLE"


class DeadlineExceeded(ServiceError):
    status = "DEADLINE_EXCEEDED"


class Cancelled(ServiceError):
    status = "CANCELLED"


class InternalError(ServiceError):
    status = "INTERNAL"


ERRORS: tuple[type[ServiceError], ...] = (
    InvalidRequest,
    NotFound,
    AlreadyExists,
    PreconditionFailed,
    Conflict,
    Unauthenticated,
    ResourceExhausted,
    OutOfDisk,
    DataLoss,
    Unavailable,
    DeadlineExceeded,
    Cancelled,
    InternalError,
)
#: The service may never have heard of the call.
NO_ANSWER = (Unavailable, DeadlineExceeded)
_BY_NAME = {error.__name__: error for error in ERRORS}
# Reversed, so that the first class of a status wins where two share it.
_BY_STATUS = {error.status: error for error in reversed(ERRORS)}


def error_class(status: str, name: str = "") -> type[ServiceError]:
    """The class for a gRPC status name and the ``shoal-error`` metadata; `InternalError` when neither is known."""
    return _BY_NAME.get(name) or _BY_STATUS.get(status, InternalError)
