"""The runtime environments of this node: each is made once, however many wait for it."""

from __future__ import annotations

import asyncio
import os
import shlex
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from shoal_common.placement import runtime_env
from shoal_common.runtime_env_plugins import RuntimeEnvContext
from shoal_raylet.workers.environments.cache import Attempt, Entry, EnvironmentCache, SetupFailed
from shoal_raylet.workers.environments.conda_envs import CondaEnvs
from shoal_raylet.workers.environments.containers import Containers
from shoal_raylet.workers.environments.downloads import Downloads, StoredPackages
from shoal_raylet.workers.environments.launch import PLAIN, Launch
from shoal_raylet.workers.environments.made_by_plugins import MadeByPlugins
from shoal_raylet.workers.environments.nsight import profiler
from shoal_raylet.workers.environments.virtual_envs import VirtualEnvs, site_directories

#: Environments that are made at once; more wait for their turn.
AT_ONCE = 4
#: Failures that are remembered.
MAX_FAILURES = 100


class Held(Protocol):
    """What an environment is made of stays until then."""

    def close(self) -> None: ...


class EnvironmentManager:
    """Belongs to one event loop."""

    def __init__(
        self,
        cache: EnvironmentCache,
        packages: StoredPackages,
        environ: Mapping[str, str],
        directories: Sequence[Path],
        reports: Path,
    ) -> None:
        """``environ``: the node's own environment variables. ``directories``: what of the node workers use, wherever
        they run. ``reports``: where profilers write theirs."""
        self._environ = environ
        self._packages = packages
        self._downloads = Downloads(cache, packages, asyncio.get_running_loop())
        self._virtual_envs = VirtualEnvs(cache, self._downloads)
        self._reports = reports
        self._conda_envs = CondaEnvs(cache, site_directories())
        self._containers = Containers(directories, environ)
        self._made_by_plugins = MadeByPlugins()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="environment")
        self._given_up = threading.Event()
        #: By the key of the environment.
        self._made: dict[str, tuple[Launch, list[Held]]] = {"": (PLAIN, [])}
        #: Why those that last could not be made were not, by their documents.
        self.failures: dict[str, str] = {}

    @property
    def made(self) -> dict[str, str]:
        """The documents of those that are made, by their keys."""
        return {key: launch.document for key, (launch, _entries) in self._made.items() if key}

    async def prepare(self, key: str, document: str) -> None:
        """Raises: SetupFailed."""
        self.failures.pop(document, None)
        config = runtime_env.decode(document).get("config", {})
        timeout_s = config.get("setup_timeout_seconds", runtime_env.DEFAULT_SETUP_TIMEOUT_S)
        attempt = Attempt(timeout_s, self._given_up)
        made = asyncio.get_running_loop().run_in_executor(self._threads, self._make, document, attempt)
        try:
            self._made[key] = await made
        except SetupFailed as error:
            self.failures[document] = str(error)
            if len(self.failures) > MAX_FAILURES:
                del self.failures[next(iter(self.failures))]
            raise
        await self._packages.used(_stored(self._made[key][1]))

    def launch(self, key: str) -> Launch:
        """Of one that was prepared and is not released."""
        return self._made[key][0]

    def stored(self) -> set[str]:
        """Where the cluster's blobs have what the environments are made of that are made now."""
        return {place for _, entries in self._made.values() for place in _stored(entries)}

    def vanished(self) -> list[str]:
        """The keys of those whose files somebody has removed."""
        return [
            key
            for key, (_, entries) in self._made.items()
            if any(isinstance(entry, Entry) and not entry.path.exists() for entry in entries)
        ]

    def release(self, key: str) -> None:
        _, entries = self._made.pop(key)
        for entry in entries:
            self._threads.submit(entry.close)

    async def stop(self) -> None:
        """What is being made is given up."""
        self._given_up.set()
        for key in list(self._made):
            self.release(key)
        await asyncio.to_thread(self._threads.shutdown)

    # --- in a thread ---

    def _make(self, document: str, attempt: Attempt) -> tuple[Launch, list[Held]]:
        """Raises: SetupFailed."""
        entries: list[Held] = []
        try:
            return self._launch(document, runtime_env.decode(document), attempt, entries), entries
        except BaseException:
            for entry in entries:
                entry.close()
            raise

    def _launch(self, document: str, environment: dict[str, Any], attempt: Attempt, entries: list[Held]) -> Launch:
        def package(field: str, uri: str) -> Path:
            try:
                entry = self._downloads.package(uri, attempt)
            except SetupFailed as error:
                raise SetupFailed(f"{field} {uri}: {error}") from error
            entries.append(entry)
            return entry.path

        directory = None
        import_paths: list[str] = []
        if uri := environment.get("working_dir"):
            directory = str(package("working_dir", uri) / "unpacked")
            import_paths.append(directory)
        for uri in environment.get("py_modules", ()):
            unpacked = package("py_modules", uri) / "unpacked"
            import_paths += map(str, [unpacked, *unpacked.glob("*.data/p*lib")])
        environ = runtime_env.expanded(environment.get("env_vars", {}), self._environ)
        own_python = tuple(shlex.split(environment.get("py_executable", "")))
        python = own_python or PLAIN.python
        for tool in runtime_env.INSTALLERS:
            if tool in environment:
                try:
                    entry = self._virtual_envs.entry(tool, environment[tool], self._environ, environ, attempt)
                except SetupFailed as error:
                    raise SetupFailed(f"{tool} {environment[tool]['packages']}: {error}") from error
                entries.append(entry)
                python = (str(entry.path / "bin" / "python"),)
                path = environ.get("PATH") or self._environ.get("PATH", os.defpath)
                environ |= {"VIRTUAL_ENV": str(entry.path), "PATH": f"{entry.path / 'bin'}:{path}"}
        if "conda" in environment:
            try:
                conda = self._conda_envs.find(environment["conda"], {**self._environ, **environ}, attempt)
            except SetupFailed as error:
                raise SetupFailed(f"conda {environment['conda']}: {error}") from error
            entries += conda.entries
            python = (conda.python,)
            environ = {**conda.environ, **environ}
        if any(not runtime_env.is_known(name) for name in environment):
            context = RuntimeEnvContext(environ, shlex.join(python))
            entries += self._made_by_plugins.make(environment, context, attempt)
            environ, python = context.env_vars, tuple(shlex.split(context.py_executable))
        words: list[str] = []
        if "nsight" in environment:
            words = profiler(environment["nsight"], self._reports, {**self._environ, **environ}, attempt)
        container = None
        if wanted := runtime_env.container(environment):
            try:
                container = self._containers.find(wanted, own_python, attempt)
            except SetupFailed as error:
                raise SetupFailed(f"the image {wanted['image']}: {error}") from error
        preimport = tuple(environment.get("preimport", ()))
        return Launch(document, environ, directory, python, tuple(import_paths), preimport, tuple(words), container)


def _stored(entries: Iterable[Held]) -> list[str]:
    return [entry.stored_at for entry in entries if isinstance(entry, Entry) and entry.stored_at]
