"""A service's process: start in order, wait for a signal, stop in the reverse order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Protocol, TypeVar

import structlog

from shoal_common import logging
from shoal_common.auth import TokenError
from shoal_common.config import ConfigError, ServiceConfig, load

#: An app has this long to stop, in seconds; a container runtime kills ten seconds after SIGTERM.
STOP_DEADLINE_S = 8.0

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIG = 2

_log = structlog.get_logger()

C = TypeVar("C", bound=ServiceConfig)


class App(Protocol):
    """One service. Constructing is cheap and touches nothing; after a failed ``start`` it is not stopped."""

    @property
    def address(self) -> str:
        """``host:port`` of its gRPC server, once started."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


def main(config: type[C], build: Callable[[C], App]) -> int:
    """The whole ``__main__`` of a service; returns the exit code.

    ``build`` is called in the event loop and may raise ConfigError.
    """

    async def run(settings: C) -> int:
        return await run_service(build(settings))

    try:
        settings = load(config, sys.argv[1:], os.environ)
        logging.configure(config.SERVICE, settings.log_level)
        return asyncio.run(run(settings))
    except (ConfigError, TokenError) as error:
        print(f"shoal_{config.SERVICE}: {error}", file=sys.stderr)
        return EXIT_CONFIG


async def run_service(*apps: App) -> int:
    """Start ``apps`` in order, wait for SIGTERM or SIGINT, stop them in the reverse order; returns the exit code.

    When one does not start, those before it are stopped. An app that does not stop in time is abandoned: the
    process ends anyway, and what must survive is not in it. Nothing is raised but cancellation.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stopping.set)
    started: list[App] = []
    code = EXIT_OK
    try:
        for app in apps:
            try:
                await app.start()
            except Exception:
                _log.exception("service_start_failed", app=type(app).__name__)
                return EXIT_FAILED
            started.append(app)
            _log.info("service_started", app=type(app).__name__, address=app.address)
        await stopping.wait()
    finally:
        for app in reversed(started):
            code = max(code, await _stop(app))
        for number in signals:
            loop.remove_signal_handler(number)
    return code


async def _stop(app: App) -> int:
    name = type(app).__name__
    try:
        async with asyncio.timeout(STOP_DEADLINE_S):
            await app.stop()
    except TimeoutError:
        _log.error("service_stop_timed_out", app=name, deadline_s=STOP_DEADLINE_S)
        return EXIT_FAILED
    except Exception:
        _log.exception("service_stop_failed", app=name)
        return EXIT_FAILED
    _log.info("service_stopped", app=name)
    return EXIT_OK
