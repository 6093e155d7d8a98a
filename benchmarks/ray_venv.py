"""Ray in a virtual environment of its own, below .cache: Shoal's must not contain it."""

from __future__ import annotations

import subprocess
import venv
from importlib.metadata import version
from pathlib import Path

RAY_VERSION = "2.60.0"


def python_with_ray(cache: Path) -> Path:
    """The interpreter of the environment, which is set up if need be. Raises: CalledProcessError when pip fails."""
    directory = cache / f"ray-{RAY_VERSION}"
    installed = directory / "installed"
    if not installed.exists():
        print(f"installing Ray {RAY_VERSION} into {directory} ...", flush=True)
        venv.create(directory, with_pip=True, clear=True)
        # The same numpy on both sides: it copies the arrays.
        packages = [f"ray=={RAY_VERSION}", f"numpy=={version('numpy')}"]
        subprocess.run([directory / "bin/pip", "install", "--quiet", *packages], check=True)
        installed.touch()
    return directory / "bin/python"
