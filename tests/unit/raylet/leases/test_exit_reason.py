from __future__ import annotations

import pytest

from shoal_raylet.leases.exit_reason import ExitReason, exit_reason

ANNOUNCED = ExitReason("INTENDED_USER_EXIT", "max_calls reached")
CAUSED = ExitReason("NODE_OUT_OF_MEMORY", "it grew")


@pytest.mark.parametrize(
    ("exit_code", "announced", "caused", "kind", "detail"),
    [
        (-9, None, None, "SYSTEM_ERROR", "killed by SIGKILL"),
        (-11, ANNOUNCED, None, "SYSTEM_ERROR", "killed by SIGSEGV"),
        (-9, ANNOUNCED, CAUSED, "NODE_OUT_OF_MEMORY", "it grew"),
        (3, None, None, "SYSTEM_ERROR", "exited with code 3 (os._exit or sys.exit)"),
        (0, None, None, "SYSTEM_ERROR", "exited with code 0"),
        (0, ANNOUNCED, None, "INTENDED_USER_EXIT", "max_calls reached"),
        (None, None, None, "SYSTEM_ERROR", "not known"),
        (None, ANNOUNCED, None, "INTENDED_USER_EXIT", "max_calls reached"),
        (-40, None, None, "SYSTEM_ERROR", "killed by signal 40"),
    ],
)
def test_exit_reasons(
    exit_code: int | None, announced: ExitReason | None, caused: ExitReason | None, kind: str, detail: str
) -> None:
    reason = exit_reason(exit_code, announced, caused)
    assert reason.kind == kind
    assert detail in reason.detail
