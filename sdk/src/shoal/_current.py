"""The core worker of this process, if it has one. What stands below ``_owner`` finds it as the ``Holder``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from shoal import exceptions
from shoal._core.object_ref import register_holder

if TYPE_CHECKING:  # `import shoal` must not pay for all that a session needs
    from shoal._owner.core_worker import CoreWorker

_current: CoreWorker | None = None
#: Starts a session; registered by the module that can.
_starter: Callable[[], object] | None = None
#: Grows with each session, so that decorated functions know when to export themselves again.
epoch = 0
#: Grows with each session too, and whenever what calls were prepared with does not hold any more.
prepared_epoch = 0
_forked = False


def current() -> CoreWorker:
    """Raises: ShoalSystemError when Shoal is not running here."""
    if _current is None:
        if _forked:
            raise exceptions.ShoalSystemError(
                "This process was forked from one that runs Shoal and cannot use its connection: "
                "call shoal.init() here, or start processes with multiprocessing's 'spawn' method"
            )
        raise exceptions.ShoalSystemError("Shoal has not been started: call shoal.init() first")
    return _current


def current_or_none() -> CoreWorker | None:
    return _current


def was_forked() -> bool:
    return _forked


def register_starter(start: Callable[[], object]) -> None:
    """``start()`` starts a session as ``shoal.init()`` does."""
    global _starter
    _starter = start


def connected() -> CoreWorker:
    """As ``current``, but starts a session first where none runs (off with SHOAL_ENABLE_AUTO_CONNECT=0)."""
    if _current is None and not _forked and os.environ.get("SHOAL_ENABLE_AUTO_CONNECT", "1") != "0":
        assert _starter is not None
        _starter()
    return current()


def set_current(core: CoreWorker | None) -> None:
    global _current, epoch, _forked
    _current = core
    epoch += 1
    prepare_anew()
    if core is not None:
        _forked = False


def prepare_anew() -> None:
    global prepared_epoch
    prepared_epoch += 1


def _after_fork_in_child() -> None:
    global _current, _forked
    if _current is not None:
        core, _current = _current, None
        _forked = True
        core.abandon()


register_holder(current)
os.register_at_fork(after_in_child=_after_fork_in_child)
