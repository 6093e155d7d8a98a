"""Virtual environments of ``pip`` and ``uv``: installed once for the whole cluster, on top of the node's own packages.

They have no site-packages of a base interpreter, but a ``.pth`` file that brings those of the node's own Python: Shoal,
and whatever else is there and not installed anew. (``--system-site-packages`` brings those of the interpreter that the
node's own virtual environment was made from, which lacks them.)

What was installed goes to the cluster's blobs, from which other nodes and later jobs have it without an index.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
import venv
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from shoal_raylet.workers.environments.archives import unpack
from shoal_raylet.workers.environments.cache import Attempt, Entry, EnvironmentCache, SetupFailed
from shoal_raylet.workers.environments.downloads import Downloads
from shoal_raylet.workers.environments.tools import run_tool

log = structlog.get_logger(__name__)

#: A larger one is not stored for other nodes.
MAX_STORED_BYTES = 2 * 1024**3
#: Where a virtual environment has its packages.
SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
_OPTIONS = {"pip": "pip_install_options", "uv": "uv_pip_install_options"}
#: Variables that tell the tools where to look, among other things.
_SETTINGS = ("PIP_", "UV_")
_CREDENTIALS = re.compile(r"://[^/@\s\"]*@")
#: In a virtual environment: brings the node's own packages.
_BASE_PTH = "_shoal_base.pth"


class VirtualEnvs:
    """Thread-safe; its methods wait, in other threads than the event loop's."""

    def __init__(self, cache: EnvironmentCache, downloads: Downloads) -> None:
        self._cache = cache
        self._downloads = downloads
        self._base = site_directories()

    def entry(
        self,
        tool: str,
        wanted: Mapping[str, Any],
        node: Mapping[str, str],
        own: Mapping[str, str],
        attempt: Attempt,
    ) -> Entry:
        """A virtual environment. ``tool``: "pip" or "uv"; ``wanted``: its field. ``node``: the node's environment
        variables, ``own``: those of the runtime environment; the tool has both.

        Raises: SetupFailed, which ends with the tool's last lines.
        """
        name = f"{tool}-{digest(tool, wanted, own)}"
        environ = {**node, **own}
        # Another Python of this machine, with the same packages, has its own.
        here = hashlib.sha256(json.dumps([sys.prefix, self._base]).encode()).hexdigest()[:8]
        entry = self._cache.entry(
            f"{name}-{here}", lambda place: self._make(name, tool, wanted, environ, place, attempt), attempt
        )
        entry.stored_at = f"environment/{name}"
        return entry

    def _make(
        self,
        name: str,
        tool: str,
        wanted: Mapping[str, Any],
        environ: Mapping[str, str],
        place: Path,
        attempt: Attempt,
    ) -> None:
        venv.EnvBuilder(symlinks=True).create(place)
        add_packages(place / SITE, self._base)
        final, stored = place.with_suffix(""), place / "stored.zip"
        if self._downloads.installed(name, stored, attempt):
            unpack(stored, place, attempt)
            _relocate(place, (place / "prefix").read_text(), final)
        else:
            self._install(tool, wanted, {**environ, "VIRTUAL_ENV": str(place)}, place, attempt)
            _relocate(place, str(place), final)
            (place / "prefix").write_text(str(final))
            if _pack(place, stored) <= MAX_STORED_BYTES:
                self._downloads.store_installed(name, stored, attempt)
            else:
                log.warning("environment_not_stored", name=name, reason=f"it has more than {MAX_STORED_BYTES} bytes")
        stored.unlink(missing_ok=True)

    def _install(
        self, tool: str, wanted: Mapping[str, Any], environ: Mapping[str, str], place: Path, attempt: Attempt
    ) -> None:
        python = str(place / "bin" / "python")
        wheels = place / "wheels"
        requirements = place / "requirements.txt"
        lines = [self._downloads.wheel(each, wheels, attempt) for each in wanted["packages"]]
        requirements.write_text("".join(f"{line}\n" for line in lines))
        pip = _pip(python)
        if wanted.get(f"{tool}_version"):
            pinned = f"{tool}{_pinned(wanted[f'{tool}_version'])}"
            run_tool(f"pip install {tool}", [*pip, "install", pinned], environ, attempt, place)
            pip = [python, "-m", "pip"]
        if tool == "uv":
            uv = _uv(place, bool(wanted.get(f"{tool}_version")))
            if not uv:
                run_tool("pip install uv", [*pip, "install", "uv"], environ, attempt, place)
                uv = [str(place / "bin" / "uv")]
            command = [*uv, "pip", "install", "--python", python]
            check = [*uv, "pip", "check", "--python", python]
        else:
            command, check = [*pip, "install"], [*pip, "check"]
        command += [*wanted.get(_OPTIONS[tool], ()), "-r", str(requirements)]
        run_tool(f"{tool} install", command, environ, attempt, place)
        if wanted[f"{tool}_check"]:
            run_tool(f"{tool} check", check, environ, attempt, place)
        shutil.rmtree(wheels, ignore_errors=True)


def site_directories() -> list[str]:
    """Where this process's own packages are."""
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]


def add_packages(site: Path, directories: Sequence[str]) -> None:
    """What is in ``directories`` is found behind what is in ``site``."""
    lines = [f"import site; site.addsitedir({path!r})\n" for path in directories]
    (site / _BASE_PTH).write_text("".join(lines))


def digest(tool: str, wanted: Mapping[str, Any], own: Mapping[str, str]) -> str:
    """Of what is installed: the same on nodes that have the same Python and packages.

    ``own``: the environment's own variables. Those of the tool count (PIP_INDEX_URL): what one index calls by a name
    and version may be another thing in another. The node's do not: its owner says which mirror it uses, and a node that
    has none takes what others have installed. Who asks does not count either: user and password in an address are left
    out, so that a new password builds nothing anew, and none can be guessed from the name.
    """
    settings = {name: text for name, text in own.items() if name.startswith(_SETTINGS)}
    base = sorted({f"{each.name}=={each.version}" for each in importlib.metadata.distributions()})
    made_for = [sys.implementation.cache_tag, platform.system(), platform.machine(), *platform.libc_ver()]
    document = _CREDENTIALS.sub("://", json.dumps([tool, wanted, made_for, base, settings], sort_keys=True))
    return hashlib.sha256(document.encode()).hexdigest()[:40]


def _pip(python: str) -> list[str]:
    """The command that installs into a virtual environment, of pip or of what comes with Python."""
    quiet = ["--disable-pip-version-check", "--no-input"]
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "--python", python, *quiet]
    wheels = sorted(Path(importlib.import_module("ensurepip").__path__[0], "_bundled").glob("pip-*.whl"))
    if not wheels:
        raise SetupFailed("the node's Python has no pip: install it there")
    return [python, f"{wheels[-1]}/pip", *quiet]


def _uv(place: Path, own: bool) -> list[str]:
    """Empty = it is not there."""
    found = str(place / "bin" / "uv") if own else shutil.which("uv")
    return [found] if found else []


def _pinned(version: str) -> str:
    return version if version.startswith(("=", "<", ">", "~", "!")) else f"=={version}"


def _relocate(place: Path, old: str, new: Path) -> None:
    """Scripts name the interpreter by its path."""
    for script in (place / "bin").iterdir():
        if script.is_file() and not script.is_symlink():
            data = script.read_bytes()
            if data.startswith(b"#!") or script.name.startswith("activate") or script.name == "Activate.ps1":
                script.write_bytes(data.replace(os.fsencode(old), os.fsencode(new)))


def _pack(place: Path, archive: Path) -> int:
    """What was installed, without the interpreter; the size in bytes."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        zipped.write(place / "prefix", "prefix")
        for top in (place / SITE, place / "bin"):
            for path in sorted(top.rglob("*")):
                if path.is_file() and not path.is_symlink() and path.name != _BASE_PTH:
                    zipped.write(path, path.relative_to(place).as_posix())
    return archive.stat().st_size
