"""Environments of conda: one that the node has, by name, or one that is made once a node for the same content.

Workers run in a virtual environment on top of it, which adds the node's own packages at the end of ``sys.path``: Shoal
comes along, and nothing is written into an environment that is somebody's. So the Python must be of the node's version.
What activation sets is there, as ``conda run`` tells it.

Through the command ``conda``, or ``mamba`` or ``micromamba``, which do the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal_raylet.workers.environments.cache import Attempt, Entry, EnvironmentCache, SetupFailed
from shoal_raylet.workers.environments.tools import ToolFailed, run_tool
from shoal_raylet.workers.environments.virtual_envs import SITE, add_packages

_COMMANDS = ("conda", "mamba", "micromamba")
#: In one line: ``conda run`` does not take arguments of several everywhere.
_PROBE = (
    "import json, os, sys, sysconfig; "
    "facts = [sys.implementation.cache_tag, '.'.join(map(str, sys.version_info[:3])), sysconfig.get_path('purelib')]; "
    "print('shoal:' + json.dumps([*facts, dict(os.environ)]))"
)


@dataclass(frozen=True, slots=True)
class CondaEnv:
    python: str
    #: What activation has changed.
    environ: dict[str, str]
    #: What must stay while workers are in it.
    entries: tuple[Entry, ...]


class CondaEnvs:
    """Thread-safe; ``find`` waits."""

    def __init__(self, cache: EnvironmentCache, site_directories: list[str]) -> None:
        """``site_directories``: where the node's own packages are."""
        self._cache = cache
        self._base = site_directories

    def find(self, wanted: str | Mapping[str, Any], environ: Mapping[str, str], attempt: Attempt) -> CondaEnv:
        """``wanted``: the field ``conda``. ``environ``: for the tool.

        Raises: SetupFailed, which ends with the tool's last lines.
        """
        conda = environ.get("CONDA_EXE") or next(
            filter(None, (shutil.which(name, path=environ.get("PATH", os.defpath)) for name in _COMMANDS)), None
        )
        if conda is None:
            raise SetupFailed(f"the node has none of {', '.join(_COMMANDS)}: install one there, or set CONDA_EXE")
        entries = []
        if isinstance(wanted, str):
            prefix = self._named(conda, wanted, environ, attempt)
        else:
            text = wanted["yaml"] if "yaml" in wanted else json.dumps(_with_python(wanted), sort_keys=True)
            name = f"conda-{hashlib.sha256(text.encode()).hexdigest()[:40]}"
            entry = self._cache.entry(
                name, lambda place: _create(conda, place, text, environ, attempt), attempt, in_place=True
            )
            entries.append(entry)
            prefix = entry.path / "prefix"
        try:
            return self._activated(conda, prefix, environ, attempt, entries)
        except BaseException:
            for entry in entries:
                entry.close()
            raise

    def _named(self, conda: str, name: str, environ: Mapping[str, str], attempt: Attempt) -> Path:
        """Raises: SetupFailed."""
        listed = json.loads(_json(run_tool("conda env list", [conda, "env", "list", "--json"], environ, attempt)))
        prefixes = {Path(each).name: Path(each) for each in reversed(listed["envs"])}
        if os.path.isabs(name):
            prefixes[name] = Path(name)
        if name == "base":
            facts = json.loads(_json(run_tool("conda info", [conda, "info", "--json"], environ, attempt)))
            prefixes[name] = Path(facts.get("root_prefix") or facts["base environment"])
        if name not in prefixes:
            raise SetupFailed(f"{conda} knows no environment of this name: it has {', '.join(sorted(prefixes))}")
        return prefixes[name]

    def _activated(
        self, conda: str, prefix: Path, environ: Mapping[str, str], attempt: Attempt, entries: list[Entry]
    ) -> CondaEnv:
        """Adds to ``entries``. Raises: SetupFailed."""
        run = [conda, "run", "--prefix", os.fspath(prefix), "python"]
        printed = run_tool("conda run python", [*run, "-c", _PROBE], environ, attempt)
        facts = [line for line in printed.splitlines() if line.startswith("shoal:")]
        if not facts:
            raise SetupFailed(f"its python is none, but prints: {printed[-500:]}")
        cache_tag, version, packages, activated = json.loads(facts[-1].removeprefix("shoal:"))
        if cache_tag != sys.implementation.cache_tag:
            own = ".".join(map(str, sys.version_info[:2]))
            raise SetupFailed(f"its Python is {version}, and the node's is {own}: both must be {own}")

        def make(place: Path) -> None:
            create = [*run, "-m", "venv", "--without-pip", os.fspath(place)]
            run_tool("python -m venv", create, environ, attempt)
            add_packages(place / SITE, [packages, *self._base])

        on_top = json.dumps([os.fspath(prefix), version, packages, self._base])
        entry = self._cache.entry(f"conda-run-{hashlib.sha256(on_top.encode()).hexdigest()[:40]}", make, attempt)
        entries.append(entry)
        changed = {name: text for name, text in activated.items() if environ.get(name) != text}
        return CondaEnv(os.fspath(entry.path / "bin" / "python"), changed, tuple(entries))


def _create(conda: str, place: Path, text: str, environ: Mapping[str, str], attempt: Attempt) -> None:
    """Raises: SetupFailed."""
    file = place / "environment.yml"
    file.write_text(text)
    # JSON is YAML. micromamba has no ``env create``, conda's own ``create`` does not read such files.
    create = ["create", "--yes"] if Path(conda).name == "micromamba" else ["env", "create"]
    command = [conda, *create, "--prefix", os.fspath(place / "prefix"), "--file", os.fspath(file)]
    run_tool(f"conda {' '.join(create)}", command, environ, attempt)


def _with_python(environment: Mapping[str, Any]) -> dict[str, Any]:
    """That of the node unless it says which."""
    wanted = list(environment.get("dependencies", ()))
    if not any(isinstance(each, str) and each.split("=")[0].strip("<>! ") == "python" for each in wanted):
        wanted.append(f"python={sys.version_info.major}.{sys.version_info.minor}")
    return {**environment, "dependencies": wanted}


def _json(printed: str) -> str:
    """Without the warnings before it. Raises: ToolFailed."""
    start = printed.find("{")
    if start < 0:
        raise ToolFailed(f"conda printed no JSON: {printed[-500:]}")
    return printed[start:]
