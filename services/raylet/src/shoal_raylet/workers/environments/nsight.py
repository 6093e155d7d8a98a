"""NVIDIA's Nsight Systems: the command before those of workers that are profiled. As in Ray, ``runtime_env["nsight"]``.

Each worker is started by itself, not forked from a template: what is profiled is one process, and its report is written
when that has ended.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from shoal_raylet.workers.environments.cache import Attempt, SetupFailed
from shoal_raylet.workers.environments.tools import ToolFailed, run_tool

#: Ray's.
_DEFAULT = {"t": "cuda,cudnn,cublas,nvtx", "o": "worker_process_%p", "stop-on-exit": "true"}


def profiler(wanted: str | Mapping[str, str], reports: Path, environ: Mapping[str, str], attempt: Attempt) -> list[str]:
    """The words before a worker's command. ``wanted``: options of ``nsys profile`` by name, or "default". ``reports``:
    the directory of the reports, for all ``o`` that is no absolute path.

    Raises: SetupFailed when it is not installed, or does not take these options.
    """
    nsys = shutil.which("nsys", path=environ.get("PATH", os.defpath))
    if nsys is None:
        raise SetupFailed("nsight: the node has no nsys: install NVIDIA Nsight Systems there")
    options = _DEFAULT if isinstance(wanted, str) else wanted
    reports.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        tried = _command(nsys, {**options, "o": os.path.join(directory, "tried")})
        try:
            run_tool("nsys", [*tried, sys.executable, "-c", ""], environ, attempt)
        except ToolFailed as error:
            raise SetupFailed(f"nsight: {error}") from error
    return _command(nsys, {**options, "o": os.path.join(reports, options.get("o", _DEFAULT["o"]))})


def _command(nsys: str, options: Mapping[str, str]) -> list[str]:
    words = [nsys, "profile"]
    for name, value in options.items():
        words += [f"-{name}", value] if len(name) == 1 else [f"--{name}={value}"]
    return words
