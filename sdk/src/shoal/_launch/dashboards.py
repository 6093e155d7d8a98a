"""The dashboard of a cluster: started on this machine, or found where it runs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal._launch.daemons import last_words
from shoal_common.auth import TOKEN_VARIABLE
from shoal_common.dashboard_place import KEY, NAMESPACE, PORT, PORTS_TRIED
from shoal_common.surroundings import environment, interpreter

if TYPE_CHECKING:
    from shoal._net.gcs.client import GcsClient

#: It is up after so many seconds, or has failed: a second or two, many times that where many processes share few cores.
START_TIMEOUT_S = 60.0
#: It is told to end, and killed after so many.
STOP_TIMEOUT_S = 15.0
#: Of the service's setting.
_DATA_DIR_VARIABLE = "SHOAL_DASHBOARD_DATA_DIR"
#: One look, in seconds: by then the end of its process is noticed.
_LOOK_S = 1.0


def check_installed() -> None:
    """Raises: RuntimeError when it is not."""
    if importlib.util.find_spec("shoal_dashboard") is None:
        raise RuntimeError("The dashboard is not installed: pip install 'shoal[dashboard]'")


def flags(gcs_address: str, host: str, port: int | None, directory: Path) -> dict[str, Any]:
    """Of its service. ``port`` None: the usual one, or the next that is free. ``directory``: whoever starts it removes
    it; what is recorded is there, unless the environment says where."""
    where: dict[str, Any] = {"port": PORT, "port_retries": PORTS_TRIED} if port is None else {"port": port}
    if not os.environ.get(_DATA_DIR_VARIABLE):
        where["data_dir"] = directory / "dashboard"
    return {"gcs_address": gcs_address, "host": host, **where}


def url_of(gcs: GcsClient) -> str | None:
    """Where the cluster's dashboard is; None = it has none. Raises: RpcError."""
    return announced(gcs)[0] or None


def announced(gcs: GcsClient) -> tuple[str, int]:
    """Where the cluster's dashboard says it is, or was some seconds ago if it was killed, and which announcement that
    is; "" and 0 = there is none. Raises: RpcError."""
    found = gcs.kv.get(NAMESPACE, KEY)
    return (found[0].decode(), found[1]) if found is not None else ("", 0)


def await_url(gcs: GcsClient, why_not: Callable[[], str], known: int = 0) -> str:
    """Returns when it has told where it is. ``why_not``: "" while its process runs. ``known``: the announcement that
    was there before it was started.

    Raises: RuntimeError with the reason, RpcError.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if (found := gcs.kv.watch(NAMESPACE, KEY, known, _LOOK_S)) and found[1] != known:
            return found[0].decode()
        if reason := why_not():
            raise RuntimeError(f"The dashboard did not start: {reason}")
    raise RuntimeError(f"The dashboard was not up after {START_TIMEOUT_S:g} s")


class Dashboard:
    """A process that is this one's child, and ends with it, whatever way that ends."""

    def __init__(
        self, gcs_address: str, token: str, host: str, port: int | None, directory: Path, log: Path | None
    ) -> None:
        """Begin to start it. ``directory``: as of ``flags``. ``log``: None = it says on standard error what it has to
        say.

        Raises: RuntimeError when it is not installed.
        """
        check_installed()
        self._log = log
        settings = {**flags(gcs_address, host, port, directory), "ends_with": os.getpid(), "log_level": "warning"}
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(open(log, "ab")) if log is not None else None
            self._process = subprocess.Popen(
                interpreter("shoal_dashboard", *arguments),
                env={**environment(), TOKEN_VARIABLE: token},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def await_url(self, gcs: GcsClient, known: int = 0) -> str:
        """As the function. Raises: RuntimeError, RpcError."""
        return await_url(gcs, self._why_not, known)

    def wait(self) -> int:
        """Until it ends; its exit code."""
        return self._process.wait()

    def stop(self) -> None:
        """By force after ``STOP_TIMEOUT_S``."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _why_not(self) -> str:
        code = self._process.poll()
        if code is None:
            return ""
        return (last_words(self._log) if self._log is not None else "") or f"it has ended with code {code}"
