"""Images that workers run in: had from their registry, looked into once, and how a container of one is started.

Through the command of ``docker`` or ``podman``, which any node that runs containers has. (docker's SDK for Python knows
docker alone, brings four packages to each node, and is no faster: what takes the time is the container.)

One container of an environment holds its template and all its workers: the first costs what a container costs, the
others a fork. It has the node's network, processes and shared memory, so that a worker is known by the same pid, socket
and address in and outside of it; the node's directories that workers use are mounted where they are. The Python is the
image's own. What it lacks, Shoal for example, it finds in the node's packages, which come last in ``sys.path``: so both
must be of the same version of Python.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import pwd
import secrets
import shutil
import sys
import sysconfig
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal_common.auth import TOKEN_PATH_VARIABLE, TOKEN_VARIABLE
from shoal_raylet.workers.environments.cache import Attempt, SetupFailed
from shoal_raylet.workers.environments.tools import ToolFailed, run_tool

ENGINES = ("docker", "podman")
#: What runs in the image unless ``py_executable`` says otherwise.
PYTHON = ("python3",)
#: Where the node's packages are in a container.
_PACKAGES = "/run/shoal-node"
#: The distribution that tells which Shoal an image has.
_SHOAL = "shoal-common"
_PROBE = """
import importlib.metadata, json, sys
try:
    shoal = importlib.metadata.version("shoal-common")
except importlib.metadata.PackageNotFoundError:
    shoal = None
print("shoal:" + json.dumps([sys.implementation.cache_tag, ".".join(map(str, sys.version_info[:3])), shoal]))
"""
_START = """
import sys
sys.path += sys.argv.pop(1).split(":")
from shoal.worker_template import main
main()
"""


@dataclass(frozen=True, slots=True)
class Container:
    """An image that can be run on this node, and how."""

    engine: str
    image: str
    python: tuple[str, ...]
    #: Of the user: further arguments of ``docker run``.
    options: tuple[str, ...]
    #: The node's directories and files that workers use.
    mounts: tuple[Path, ...]
    #: Directories of the node's packages.
    packages: tuple[Path, ...]

    def command(
        self, name: str, variables: Iterable[str], directory: str | None, arguments: Sequence[str]
    ) -> list[str]:
        """What runs the template in it with these arguments, as a container of that name, which is removed when it
        ends. ``variables``: names of those that it takes over from the environment of the command, so that no value
        stands in a command line."""
        found = [f"{_PACKAGES}/{number}" for number in range(len(self.packages))]
        mounts = [f"type=bind,source={path},target={path}" for path in self.mounts]
        mounts += [
            f"type=bind,source={path},target={target},readonly"
            for path, target in zip(self.packages, found, strict=True)
        ]
        return [
            *self._run("--name", name, "--network=host", "--pid=host", "--ipc=host", "--log-driver=none"),
            *(word for mount in mounts for word in ("--mount", mount)),
            *(word for variable in variables for word in ("--env", variable)),
            *(("--workdir", directory) if directory else ()),
            *self._python("-P", "-c", _START, ":".join(found), *arguments),
        ]

    def probe(self) -> list[str]:
        """What prints the facts about its Python."""
        return [*self._run("--network=none"), *self._python("-c", _PROBE)]

    def _run(self, *arguments: str) -> list[str]:
        user = ["--user", f"{os.getuid()}:{os.getgid()}"]
        if Path(self.engine).name == "podman" and os.getuid():
            user.append("--userns=keep-id")
        return [self.engine, "run", "--rm", "--pull=never", *user, *arguments]

    def _python(self, *arguments: str) -> list[str]:
        return [*self.options, "--entrypoint", self.python[0], self.image, *self.python[1:], *arguments]


class Containers:
    """Thread-safe; ``find`` waits."""

    def __init__(self, mounts: Sequence[Path], environ: Mapping[str, str]) -> None:
        """``mounts``: what of this node workers use. ``environ``: the node's own environment variables."""
        self._mounts = tuple(path for path in dict.fromkeys(mounts) if not any(p in mounts for p in path.parents))
        self._environ = environ
        self._lock = threading.Lock()
        #: Those whose Python has been looked at.
        self._known: set[Container] = set()

    def find(self, wanted: Mapping[str, Any], python: tuple[str, ...], attempt: Attempt) -> Container:
        """``wanted``: the field ``container``. ``python``: the command that runs Python in it; empty = the default.

        Raises: SetupFailed when there is no engine, or no such image, or it has not the right Python.
        """
        engine = next(filter(None, (shutil.which(name, path=self._environ.get("PATH")) for name in ENGINES)), None)
        if engine is None:
            raise SetupFailed(f"the node has neither {' nor '.join(ENGINES)}: install one of them there")
        for path in self._mounts:
            if not path.exists():  # nothing has needed it yet
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
        image = self._image(engine, wanted["image"], attempt)
        options = tuple(wanted.get("run_options", ()))
        container = Container(engine, image, python or PYTHON, options, self._mounts, _packages())
        with self._lock:
            if container not in self._known:
                self._check(container, attempt)
                self._known.add(container)
        return container

    def _image(self, engine: str, name: str, attempt: Attempt) -> str:
        """Its id: what a name means may change while its containers run. Raises: SetupFailed."""
        inspect = [engine, "image", "inspect", "--format", "{{.Id}}", name]
        try:
            return self._run("inspect", inspect, attempt).split()[-1]
        except ToolFailed:
            pass
        try:
            self._run("info", [engine, "info"], attempt)
        except ToolFailed as error:
            user = pwd.getpwuid(os.getuid()).pw_name
            raise SetupFailed(f"{engine} cannot be used by the node's user {user}: {error}") from error
        try:
            self._run("pull", [engine, "pull", "--quiet", name], attempt)
        except ToolFailed as error:
            raise SetupFailed(f"the node does not have this image, and cannot pull it: {error}") from error
        return self._run("inspect", inspect, attempt).split()[-1]

    def _check(self, container: Container, attempt: Attempt) -> None:
        """Raises: SetupFailed."""
        command = " ".join(container.python)
        try:
            printed = self._run("run", container.probe(), attempt)
        except ToolFailed as error:
            raise SetupFailed(f"{command} does not run in it (py_executable names another Python): {error}") from error
        facts = [line for line in printed.splitlines() if line.startswith("shoal:")]
        if not facts:
            raise SetupFailed(f"{command} is no Python in it, but prints: {printed[-500:]}")
        cache_tag, version, shoal = json.loads(facts[-1].removeprefix("shoal:"))
        if cache_tag != sys.implementation.cache_tag:
            own = ".".join(map(str, sys.version_info[:2]))
            raise SetupFailed(f"its {command} is Python {version}, and the node's is {own}: both must be {own}")
        if shoal not in (None, own := importlib.metadata.version(_SHOAL)):
            raise SetupFailed(f"it has Shoal {shoal}, and the node has {own}: install {own} in it, or none")

    def _run(self, what: str, command: Sequence[str], attempt: Attempt) -> str:
        return run_tool(f"{Path(command[0]).name} {what}", command, self._environ, attempt)


def container_name() -> str:
    return f"shoal-worker-{secrets.token_hex(8)}"


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What of the node's environment variables is in a container besides the image's own: settings of Shoal."""
    tokens = (TOKEN_VARIABLE, TOKEN_PATH_VARIABLE)
    return {name: value for name, value in environ.items() if name.startswith("SHOAL_") and name not in tokens}


def _packages() -> tuple[Path, ...]:
    """Where this process imports from, but for Python's own modules."""
    own = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    own |= {os.path.join(each, "lib-dynload") for each in own}
    return tuple(Path(path).absolute() for path in sys.path if path and path not in own and os.path.isdir(path))
