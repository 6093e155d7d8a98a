"""A service's process: start in order, wait for a signal, stop in the reverse order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar, runtime_checkable

import structlog

from shoal_common.auth import TokenError
from shoal_common.bus import EventBusError
from shoal_common.errors import ServiceError
from shoal_common.metadata import MetadataStoreError
from shoal_common.service import logging
from shoal_common.service.config import ConfigError, ServiceConfig, load
from shoal_common.service.freed_memory import give_back, use_one_arena
from shoal_common.service.measured import Measured, MeasuredConfig, ServedMetrics
from shoal_common.surroundings import occupy_standard_streams, raise_open_files, take_own_signals
from shoal_common.tls import TlsError

#: An app has this long to stop, in seconds, unless it `TakesItsTime`; a container runtime kills ten seconds after
#: SIGTERM.
STOP_DEADLINE_S = 8.0

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIG = 2

#: Their text is written for whoever starts the service, and says what to do: no traceback.
_EXPLAINED = (ConfigError, EventBusError, MetadataStoreError, OSError, ServiceError, TlsError)

_log = structlog.get_logger()

C = TypeVar("C", bound=ServiceConfig)


class App(Protocol):
    """One service. Constructing is cheap and touches nothing; after a failed ``start`` it is not stopped."""

    @property
    def address(self) -> str:
        """``host:port`` of its gRPC server, once started."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@runtime_checkable
class CanFail(Protocol):
    """An app that may find, while it runs, that it cannot go on."""

    async def failed(self) -> str:
        """Returns when it cannot go on, and why. Called once it has started."""


@runtime_checkable
class TakesItsTime(Protocol):
    """An app that may need longer than others to stop."""

    @property
    def stop_deadline_s(self) -> float:
        """In seconds."""


def main(config: type[C], build: Callable[[C], App]) -> int:
    """The whole ``__main__`` of a service; returns the exit code.

    ``build`` is called in the event loop and may raise ConfigError.
    """

    async def run(settings: C) -> int:
        app = build(settings)
        if isinstance(settings, MeasuredConfig) and isinstance(app, Measured) and settings.metrics_port >= 0:
            return await run_service(app, ServedMetrics(settings, app))
        return await run_service(app)

    occupy_standard_streams()
    take_own_signals()
    raise_open_files()
    use_one_arena()
    try:
        settings = load(config, sys.argv[1:], os.environ)
        logging.configure(config.SERVICE, settings.log_level)
        return asyncio.run(run(settings))
    except (ConfigError, TokenError) as error:
        print(f"shoal_{config.SERVICE}: {error}", file=sys.stderr)
        return EXIT_CONFIG


async def run_service(*apps: App) -> int:
    """Start ``apps`` in order, wait for SIGTERM or SIGINT, stop them in the reverse order; returns the exit code.

    A signal ends a start that waits, too. When one does not start or fails (see `CanFail`), the others are stopped. An
    app that does not stop in time is abandoned: the process ends anyway, and what must survive is not in it. Nothing
    is raised but cancellation.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stopping.set)
    signalled = asyncio.create_task(stopping.wait())
    trimming = asyncio.create_task(give_back())
    started: list[App] = []
    code = EXIT_OK
    try:
        for app in apps:
            try:
                if not await _start(app, signalled):
                    return code
            except Exception as error:
                say = _log.error if isinstance(error, _EXPLAINED) else _log.exception
                say("service_start_failed", app=type(app).__name__, error=str(error))
                return EXIT_FAILED
            started.append(app)
            _log.info("service_started", app=type(app).__name__, address=app.address)
        if reason := await _first_failure(apps, signalled):
            _log.error("service_failed", reason=reason)
            code = EXIT_FAILED
    finally:
        signalled.cancel()
        trimming.cancel()
        for app in reversed(started):
            code = max(code, await _stop(app))
        await asyncio.wait({trimming})
        for number in signals:
            loop.remove_signal_handler(number)
    return code


async def _start(app: App, signalled: asyncio.Task[bool]) -> bool:
    """False = the signal came first. Raises: what the app's start does."""
    starting = asyncio.create_task(app.start())
    try:
        await asyncio.wait({starting, signalled}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return False
        starting.result()
        return True
    finally:
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})


async def _first_failure(apps: Iterable[App], signalled: asyncio.Task[bool]) -> str:
    """Why an app cannot go on; "" = the signal came first."""
    failures = {asyncio.create_task(app.failed()) for app in apps if isinstance(app, CanFail)}
    try:
        await asyncio.wait({signalled, *failures}, return_when=asyncio.FIRST_COMPLETED)
        return next((failure.result() for failure in failures if failure.done()), "")
    finally:
        for failure in failures:
            failure.cancel()


async def _stop(app: App) -> int:
    name = type(app).__name__
    deadline_s = app.stop_deadline_s if isinstance(app, TakesItsTime) else STOP_DEADLINE_S
    try:
        async with asyncio.timeout(deadline_s):
            await app.stop()
    except TimeoutError:
        _log.error("service_stop_timed_out", app=name, deadline_s=deadline_s)
        return EXIT_FAILED
    except Exception:
        _log.exception("service_stop_failed", app=name)
        return EXIT_FAILED
    _log.info("service_stopped", app=name)
    return EXIT_OK
