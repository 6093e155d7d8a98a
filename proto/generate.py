"""Generate ``common/src/shoal_proto`` from the contracts beside this file.

    python proto/generate.py            write the stubs
    python proto/generate.py --check    exit 1 and name the files that differ from what is committed

The generator versions are pinned: generated code refuses to be imported by an older runtime, so
``grpcio-tools`` is the lowest grpcio that ``common/pyproject.toml`` accepts, and the comparison of ``--check`` is
exact only for one version.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.metadata
import importlib.resources
import shutil
import sys
import tempfile
from pathlib import Path

PINS = {"grpcio-tools": "1.72.1", "mypy-protobuf": "4.0.0"}
PROTO_ROOT = Path(__file__).resolve().parent
STUB_ROOT = PROTO_ROOT.parent / "common" / "src"
PACKAGE = Path("shoal_proto", "v1")


def check_generator() -> None:
    """Raises: SystemExit when another generator version is installed than the pinned one."""
    for name, wanted in PINS.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "none"
        if found != wanted:
            pins = " ".join(f"{n}=={v}" for n, v in PINS.items())
            sys.exit(f"generate.py needs {name} {wanted}, found {found}: run pip install {pins}")


def generate(out: Path) -> None:
    """Write all stubs below ``out``. Raises: SystemExit when protoc finds an error in a contract."""
    from grpc_tools import protoc

    sources = sorted(str(path.relative_to(PROTO_ROOT)) for path in (PROTO_ROOT / PACKAGE).glob("*.proto"))
    code = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTO_ROOT}",
            f"--proto_path={importlib.resources.files('grpc_tools') / '_proto'}",
            # protoc looks the plugins up on PATH, where a venv that was not activated does not have them.
            f"--plugin=protoc-gen-mypy={plugin('protoc-gen-mypy')}",
            f"--plugin=protoc-gen-mypy_grpc={plugin('protoc-gen-mypy_grpc')}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *sources,
        ]
    )
    if code:
        sys.exit(code)


def plugin(name: str) -> str:
    beside_python = Path(sys.executable).parent / name
    found = str(beside_python) if beside_python.exists() else shutil.which(name)
    if not found:
        sys.exit(f"{name} is not installed beside {sys.executable}: run pip install mypy-protobuf")
    return found


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
    check_generator()
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
