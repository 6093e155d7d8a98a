"""``make test-libraries``: libraries that stand on Ray run on Shoal, as they come from the package index.

Each folder here is one: its ``requirements.txt`` is installed into a venv of its own in ``.cache/libraries``, beside
Shoal, ``compat/`` and its stub, and its ``program.py`` runs there. docs/import-ray.md has a table of what they find.
Names of folders as arguments: only those. Standard library only; ends with 1 when a program failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache" / "libraries"
DISTRIBUTIONS = ["common", *(f"services/{path.parent.name}" for path in sorted(ROOT.glob("services/*/pyproject.toml")))]
DISTRIBUTIONS += ["sdk", "compat", "compat/stub"]

#: Of one program, in seconds.
PATIENCE_S = 900


def pip(python: Path, *arguments: str | Path) -> None:
    subprocess.run([python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)


def environment(name: str, *requirements: str | Path) -> Path:
    """The Python of a venv, which is kept: what is required is installed when it is made."""
    python = CACHE / name / "bin" / "python"
    if not (CACHE / name / "complete").exists():
        venv.create(CACHE / name, with_pip=True, clear=True)
        pip(python, "install", *requirements)
        (CACHE / name / "complete").touch()
    return python


def build(wheels: Path) -> list[Path]:
    """Wheels of all that is Shoal's here, the stub too."""
    builder = environment("build", "setuptools>=77")
    pip(builder, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, *(ROOT / path for path in DISTRIBUTIONS))
    return sorted(wheels.glob("*.whl"))


def passes(library: Path, python: Path) -> bool:
    """Whether its program ends well; it runs in a directory of its own, where it may leave what it likes."""
    with tempfile.TemporaryDirectory(prefix="sl-", dir="/tmp") as directory:
        environment = {**os.environ, "TMPDIR": directory, "HOME": directory}
        try:
            done = subprocess.run([python, library / "program.py"], cwd=directory, env=environment, timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def main(names: list[str]) -> int:
    libraries = [HERE / name for name in names] or sorted(path.parent for path in HERE.glob("*/program.py"))
    with tempfile.TemporaryDirectory(prefix="sl-") as directory:
        wheels = build(Path(directory))
        results = {}
        for library in libraries:
            print(f"== {library.name}", flush=True)
            python = environment(library.name, *wheels, "-r", library / "requirements.txt")
            pip(python, "install", "--no-deps", "--force-reinstall", *wheels)  # as they are now, in a venv of last week
            results[library.name] = passes(library, python)
    for name, passed in results.items():
        print(f"{name:20} {'as with Ray' if passed else 'FAILED'}")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
