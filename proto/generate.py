"""Generate ``common/src/shoal_proto`` from the contracts beside this file.

    python proto/generate.py            write the stubs
    python proto/generate.py --check    exit 1 and name the files that differ from what is committed

Generated code refuses an older runtime than its generator, so the generator is pinned (``requirements.txt``
beside this file) to the lowest versions that ``common/pyproject.toml`` accepts. It lives in a venv of its own,
``.cache/protoc``: it does not tolerate the newest protobuf, with which everything else is tested.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PROTO_ROOT = Path(__file__).resolve().parent
STUB_ROOT = PROTO_ROOT.parent / "common" / "src"
PACKAGE = Path("shoal_proto", "v1")
PINS = PROTO_ROOT / "requirements.txt"
VENV = PROTO_ROOT.parent / ".cache" / "protoc"


def generator() -> Path:
    """The directory of the pinned generator's programs, installed first if it is not there in these versions."""
    installed = VENV / "installed.txt"
    programs = VENV / "bin"
    if not installed.exists() or installed.read_text() != PINS.read_text():
        venv.create(VENV, clear=True, with_pip=True)
        subprocess.run([programs / "pip", "install", "--quiet", "--requirement", PINS], check=True)
        shutil.copyfile(PINS, installed)
    return programs


def generate(out: Path) -> None:
    """Write all stubs below ``out``. Raises: CalledProcessError when protoc finds an error in a contract."""
    programs = generator()
    sources = sorted(path.relative_to(PROTO_ROOT) for path in (PROTO_ROOT / PACKAGE).glob("*.proto"))
    subprocess.run(
        [
            programs / "python",
            *("-m", "grpc_tools.protoc"),
            f"--proto_path={PROTO_ROOT}",
            f"--plugin=protoc-gen-mypy={programs / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={programs / 'protoc-gen-mypy_grpc'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *sources,
        ],
        check=True,
    )


def stubs(root: Path) -> set[str]:
    return {path.name for path in (root / PACKAGE).glob("*_pb2*")}


def differing(fresh: Path) -> list[str]:
    """Names that are missing, left over, or have other contents than committed."""
    names = stubs(fresh) | stubs(STUB_ROOT)
    _same, mismatched, missing = filecmp.cmpfiles(fresh / PACKAGE, STUB_ROOT / PACKAGE, names, shallow=False)
    return sorted([*mismatched, *missing])


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Generate the protobuf stubs.")
    parser.add_argument("--check", action="store_true", help="only compare with the committed stubs")
    check_only = parser.parse_args(argv).check
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        (fresh / PACKAGE).mkdir(parents=True)
        generate(fresh)
        changed = differing(fresh)
        if check_only:
            for name in changed:
                print(f"out of date: common/src/{PACKAGE}/{name}", file=sys.stderr)
            if changed:
                print("run `python proto/generate.py` and commit the result", file=sys.stderr)
            return 1 if changed else 0
        for name in changed:
            target = STUB_ROOT / PACKAGE / name
            if name in stubs(fresh):
                shutil.copyfile(fresh / PACKAGE / name, target)
            else:
                target.unlink()
    print(f"{len(changed)} files changed in {STUB_ROOT / PACKAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
