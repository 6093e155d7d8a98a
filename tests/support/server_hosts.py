"""Where a server of the tests runs: as a process of this machine, or else in a container that testcontainers starts.

A container has the machine's network and the server's directory at its own path, so that addresses, arguments and files
are the same in both. Its image is the one that Compose would take: a variable of the environment, else a line of .env,
else what compose.yaml says.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import docker
import pytest
import yaml
from support.networks import Machine
from support.processes import alive, eventually, stopped

# Its reaper is an image of a registry. What a run that was killed has left is removed by the next one instead.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
from testcontainers.core.container import DockerContainer

ROOT = Path(__file__).parents[2]
#: "machine" or "containers": only these; unset: whichever is there, machine first.
WHERE = "SHOAL_TEST_SERVERS"
BUILT = ".cache/images/servers"
#: Debian puts servers into sbin, which is not on everybody's path.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", BUILT])
#: On each container: the process of the tests that started it.
_LABEL = "shoal.tests.pid"


class Host(Protocol):
    """One server; started again after a kill it finds its directory as it was."""

    def launch(self, arguments: Sequence[str], environment: dict[str, str]) -> None: ...

    def kill(self) -> None:
        """As ``kill -9``, also of one that is stopped."""

    def stop(self) -> None:
        """It hangs: connections stay open and nothing answers."""

    def resume(self) -> None: ...

    def terminate(self) -> None:
        """SIGTERM; returns once it has ended."""

    def runs(self) -> bool: ...

    def why_ended(self) -> str:
        """The end of its log when it has ended by itself; "" while it runs."""


def host(
    executable: str,
    service: str,
    install: str,
    directory: Path,
    reads: Sequence[Path] = (),
    machine: Machine | None = None,
) -> Host:
    """Fails in CI, and skips elsewhere, when the server is neither on this machine nor to be had as a container.

    ``service``: its name in compose.yaml. ``reads``: files outside its directory. ``machine``: where it runs, which
    takes the server to be installed here.
    """
    where = os.environ.get(WHERE, "")
    path = shutil.which(executable, path=_PATH)
    if path is not None and where != "containers":
        return _Process(path, directory, machine.enter if machine else ())
    image = image_of(service)
    if machine is not None:
        missing = "a container has no machine of its own in these tests"
    else:
        missing = f"{WHERE}={where} rules it out" if where == "machine" else why_no_container(image)
    if not missing:
        return _Container(executable, image, directory, reads)
    reason = (
        f"{executable} is needed by these tests, and neither way to it is there. Installed on this machine: {install}. "
        f"As a container of {image}: {missing}"
    )
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def image_of(service: str) -> str:
    """The image of a service of compose.yaml, as Compose chooses it in this checkout."""
    text = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"][service]["image"]
    match = re.fullmatch(r"\$\{(\w+):-([^}]+)\}", text)
    assert match, text
    variable, default = match.groups()
    if chosen := os.environ.get(variable):
        return chosen
    file = ROOT / ".env"
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition("=")[2] for line in lines if line.startswith(f"{variable}=")), default)


def docker_client() -> docker.DockerClient:
    """Raises: DockerException without an engine."""
    kind, _, path = docker.utils.parse_host(os.environ.get("DOCKER_HOST")).partition("://")
    if kind == "http+unix":
        # Not left to the library: where nobody listens it drops its socket unclosed, and the warning about that, from
        # the garbage collector, fails whatever test it comes in.
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except OSError as error:
                raise docker.errors.DockerException(f"{path}: {error.strerror}") from None
    return docker.from_env(timeout=60)


def containers() -> list[str]:
    """Names of those that run for the tests of this process."""
    if not _Container.any:
        return []
    with contextlib.closing(docker_client()) as client:
        found = client.containers.list(all=True, filters={"label": f"{_LABEL}={os.getpid()}"})
        return [str(container.name) for container in found]


def why_no_container(image: str) -> str:
    """ "" when a container can be made of this image, which may be pulled for it."""
    try:
        client = docker_client()
    except docker.errors.DockerException as error:
        return f"there is no Docker engine ({error}): install docker.io and start dockerd"
    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        try:
            client.images.pull(image)
        except docker.errors.APIError as error:
            advice = "`make images-local` builds one, docker/local-images.env names it"
            return f"it cannot be pulled ({error.explanation}); {advice}"
    finally:
        client.close()
    return ""


class _Process:
    def __init__(self, path: str, directory: Path, enter: Sequence[str]) -> None:
        self._path = path
        self._enter = enter
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self, arguments: Sequence[str], environment: dict[str, str]) -> None:
        with self._log.open("ab") as log:
            # A test run that is killed takes its servers along.
            command = ["setpriv", "--pdeathsig", "KILL", "--", *self._enter, self._path, *arguments]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        pid = self._pid()
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: stopped(pid), f"{self._path} is stopped")

    def resume(self) -> None:
        os.kill(self._pid(), signal.SIGCONT)

    def terminate(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)
        self._process = None

    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def why_ended(self) -> str:
        assert self._process is not None
        return self._log.read_text()[-3000:] or "without a word" if self._process.poll() is not None else ""

    def _pid(self) -> int:
        assert self._process is not None
        return self._process.pid


class _Container:
    #: Some have run in this process.
    any: ClassVar[bool] = False

    def __init__(self, executable: str, image: str, directory: Path, reads: Sequence[Path]) -> None:
        self._command = [executable]
        self._image = image
        self._mounts = [(str(directory), "rw"), *((str(path), "ro") for path in reads)]
        self._container: DockerContainer | None = None

    def launch(self, arguments: Sequence[str], environment: dict[str, str]) -> None:
        # The images of the registries have entry points of their own.
        container = DockerContainer(self._image, command=[*self._command, *arguments], env=environment).with_kwargs(
            entrypoint="",
            network_mode="host",
            user=f"{os.getuid()}:{os.getgid()}",
            labels={_LABEL: str(os.getpid())},
        )
        for path, mode in self._mounts:
            container.with_volume_mapping(path, path, mode)
        _remove_leftovers(container.get_docker_client().client)
        _Container.any = True
        self._container = container.start()

    def kill(self) -> None:
        if self._container is not None:
            self._container.stop()
            self._container = None

    def stop(self) -> None:
        # Not Docker's pause: on a busy machine the kernel's freezer gives up ("unable to freeze").
        assert self._container is not None
        self._container.get_wrapped_container().kill("SIGSTOP")

    def resume(self) -> None:
        assert self._container is not None
        self._container.get_wrapped_container().kill("SIGCONT")

    def terminate(self) -> None:
        assert self._container is not None
        self._container.get_wrapped_container().stop(timeout=30)
        self.kill()

    def runs(self) -> bool:
        return self._container is not None and not self.why_ended()

    def why_ended(self) -> str:
        assert self._container is not None
        self._container.reload()
        if self._container.status in ("created", "running"):
            return ""
        return b"".join(self._container.get_logs()).decode(errors="replace")[-3000:] or "without a word"


def _remove_leftovers(client: docker.DockerClient) -> None:
    for left in client.containers.list(all=True, filters={"label": _LABEL}):
        if not alive(int(left.labels[_LABEL])):
            left.remove(force=True)
