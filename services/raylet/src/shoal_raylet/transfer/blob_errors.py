"""What goes wrong with a blob, as it travels in frames: kinds instead of classes."""

from __future__ import annotations

from shoal_common.errors import DataLoss, InvalidRequest, NotFound, OutOfDisk, ServiceError, Unavailable
from shoal_common.kinds import BlobErrorKind

#: Whatever else happens may be over later.
_KINDS: dict[type[ServiceError], BlobErrorKind] = {
    NotFound: BlobErrorKind.NOT_FOUND,
    DataLoss: BlobErrorKind.DAMAGED,
    OutOfDisk: BlobErrorKind.OUT_OF_DISK,
    InvalidRequest: BlobErrorKind.REFUSED,
    Unavailable: BlobErrorKind.AWAY,
}
_ERRORS = {kind: cls for cls, kind in _KINDS.items()}


def kind_of(error: ServiceError | OSError) -> BlobErrorKind:
    return next((kind for cls, kind in _KINDS.items() if isinstance(error, cls)), BlobErrorKind.AWAY)


def error_of(kind: BlobErrorKind, detail: str) -> ServiceError:
    return _ERRORS[kind](detail)
