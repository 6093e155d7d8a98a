"""The name of a driver's job: what ``init`` is given of it, and how it is taken."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal._net.gcs.errors import AlreadyExists
from shoal._text import check_text
from shoal._values.flags import flag
from shoal._values.numbers import MAX_KEPT_S, seconds
from shoal.exceptions import JobInUseError

if TYPE_CHECKING:
    from shoal._net.gcs.client import GcsClient

#: So long a job is kept without a driver where nobody says otherwise.
DEFAULT_KEEP_S = 600.0
MAX_NAME_BYTES = 512
#: The driver before this one may have ended a moment ago: within so many seconds the GCS knows, also when its node went
#: with it, which is noticed within five. One question, and the next, as many seconds later.
_GONE_WITHIN_S, _AGAIN_S = 8.0, 0.2


@dataclass(frozen=True, slots=True)
class JobName:
    name: str
    #: Go on with what is kept under it.
    attach: bool
    #: So long it is kept without a driver.
    keep_s: float


def named_job_given(job: str | None, attach: bool, keep_s: float, *, embedded: bool) -> JobName | None:
    """The arguments of ``init``. ``embedded``: the cluster ends with the driver. Raises: TypeError, ValueError."""
    attach = flag(attach, "attach")
    keep_s = seconds(keep_s, "keep_s")
    if not 0 <= keep_s <= MAX_KEPT_S:
        raise ValueError(f"keep_s must be a number of seconds from 0, at most {MAX_KEPT_S:,}, not {keep_s!r}")
    if job is None:
        if attach or keep_s != DEFAULT_KEEP_S:
            raise ValueError("attach and keep_s are for a job that has a name: init(job=...)")
        return None
    if not isinstance(job, str):
        raise TypeError(f"job must be None or a str, not {type(job).__name__}")
    if not 1 <= len(job.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES:
        raise ValueError(f"the name of a job has 1 to {MAX_NAME_BYTES} bytes as UTF-8")
    check_text("the name of a job", job)
    if embedded and attach:
        raise ValueError(
            "attach=True needs a cluster that outlives its drivers, and this one would end with this driver: start "
            "one, `shoal start --head`, or give the address of one"
        )
    return JobName(job, attach, keep_s)


def hold(gcs: GcsClient, job_id: bytes, name: JobName) -> bool:
    """This driver's job holds the name from now on: whether it goes on with what is kept there.

    Raises: JobInUseError, RpcError.
    """
    deadline = time.monotonic() + (_GONE_WITHIN_S if name.attach else 0.0)
    while True:
        try:
            return gcs.jobs.hold_name(job_id, name.name, socket.gethostname(), name.keep_s, attach=name.attach) > 1
        except AlreadyExists as error:
            if time.monotonic() >= deadline:
                raise JobInUseError(error.message) from None
        time.sleep(_AGAIN_S)
