"""Values as futures: of ``concurrent.futures`` and of asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from typing import TYPE_CHECKING, Any

from shoal._core.object_ref import ObjectRef
from shoal._core.objects import PENDING, STORED

if TYPE_CHECKING:
    from shoal._owner.core_worker import CoreWorker


def concurrent_future(core: CoreWorker, ref: ObjectRef[Any]) -> concurrent.futures.Future[Any]:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def resolve() -> None:
        try:
            value = core.value_of(ref._entry)
        except BaseException as error:  # the future carries whatever the task raised
            if not future.cancelled():
                future.set_exception(error)
        else:
            if not future.cancelled():
                future.set_result(value)

    def ready() -> None:
        if ref._entry.state == STORED:
            # Reading asks the raylet, which the leading thread must not wait for.
            threading.Thread(target=resolve, daemon=True).start()
        else:
            resolve()

    core.when_ready(ref, ready)
    return future


def asyncio_future(core: CoreWorker, ref: ObjectRef[Any]) -> asyncio.Future[Any]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def resolve() -> None:
        if future.done():
            return
        try:
            value = core.value_of(ref._entry)
        except BaseException as error:  # the future carries whatever the task raised
            future.set_exception(error)
        else:
            future.set_result(value)

    def ready() -> None:
        try:
            loop.call_soon_threadsafe(resolve)
        except RuntimeError:
            return  # the loop is closed: nobody awaits any more

    if ref._entry.state == PENDING:
        core.when_ready(ref, ready)
    else:
        resolve()
    return future
