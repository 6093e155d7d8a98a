from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shoal import exceptions
from shoal._session import packages
from shoal_common.channel import frames
from shoal_common.placement.runtime_env import package_digest


class Core:
    """A raylet that stores packages."""

    node_id = b"node"

    def __init__(self) -> None:
        self.questions = self
        self.stored: dict[str, dict[int, bytes]] = {}
        self.messages = 0
        self.error = ""

    def ask(self, _: Any, make: Callable[[int], frames.Message], timeout: float) -> list[frames.Message]:
        self.messages += 1
        message = make(self.messages)
        if self.error:
            return [frames.PackageDone(self.messages, error=self.error)]
        if isinstance(message, frames.PackageFind):
            return [frames.PackageDone(self.messages, found=-1 in self.stored.get(message.digest, {}))]
        assert isinstance(message, frames.PackagePut)
        self.stored.setdefault(message.digest, {})[message.part] = message.data
        return [frames.PackageDone(self.messages, found=True)]

    def names(self, uri: str) -> list[str]:
        """What is in a package."""
        parts = dict(self.stored[package_digest(uri) or ""])
        size = int(parts.pop(-1))
        data = b"".join(parts[number] for number in sorted(parts))
        assert len(data) == size
        return zipfile.ZipFile(io.BytesIO(data)).namelist()


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(packages, "_known", {})
    return Core()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name, text in {
        "main.py": "x",
        "debug.log": "x",
        ".git/config": "x",
        "__pycache__/main.pyc": "x",
        "data/big.bin": "y" * 1000,
        "data/keep.bin": "x",
        ".gitignore": "*.log\n",
        "data/.gitignore": "*.bin\n!keep.bin\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_what_of_a_directory_is_uploaded(core: Core, tree: Path) -> None:
    made = packages.uploaded(
        packages.RayletUploads(core), {"working_dir": str(tree), "excludes": ["main.*"], "env_vars": {"A": "1"}}
    )  # type: ignore[arg-type]
    assert made.keys() == {"working_dir", "env_vars"}, "what was left out is of no use to anybody else"
    assert core.names(made["working_dir"]) == [".gitignore", "data/.gitignore", "data/keep.bin"]


def test_modules_keep_their_name(core: Core, tree: Path) -> None:
    made = packages.uploaded(packages.RayletUploads(core), {"py_modules": [str(tree / "data"), str(tree / "main.py")]})  # type: ignore[arg-type]
    assert [core.names(uri) for uri in made["py_modules"]] == [["data/.gitignore", "data/keep.bin"], ["main.py"]]


def test_the_same_content_is_uploaded_once(core: Core, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PACKAGE_PART_BYTES", 100)
    (first,) = packages.uploaded(packages.RayletUploads(core), {"working_dir": str(tree)}).values()  # type: ignore[arg-type]
    sent = core.messages
    assert sent > 4, "in parts"
    packages.uploaded(packages.RayletUploads(core), {"working_dir": str(tree)})  # type: ignore[arg-type]
    assert core.messages == sent, "nothing has changed"
    (tree / "main.py").touch()
    (again,) = packages.uploaded(packages.RayletUploads(core), {"working_dir": str(tree)}).values()  # type: ignore[arg-type]
    assert again == first and core.messages == sent + 1, "it is asked for, and there"
    (tree / "main.py").write_text("z")
    (other,) = packages.uploaded(packages.RayletUploads(core), {"working_dir": str(tree)}).values()  # type: ignore[arg-type]
    assert other != first


def test_archives_and_uris_are_taken_as_they_are(core: Core, tmp_path: Path) -> None:
    wheel = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("x.py", "1")
    made = packages.uploaded(packages.RayletUploads(core), {"py_modules": [str(wheel), "s3://b/y.zip"]})  # type: ignore[arg-type]
    assert core.names(made["py_modules"][0]) == ["x.py"] and made["py_modules"][0].endswith(".whl")
    assert made["py_modules"][1] == "s3://b/y.zip"


def test_wheels_to_install_are_uploaded(core: Core, tmp_path: Path) -> None:
    wheel = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("x.py", "1")
    pip = {"packages": [str(wheel), "other==1"], "pip_check": False}
    made = packages.uploaded(packages.RayletUploads(core), {"pip": pip})["pip"]  # type: ignore[arg-type]
    uri, _, name = made["packages"][0].partition("#")
    assert core.names(uri) == ["x.py"] and name == wheel.name
    assert made["packages"][1:] == ["other==1"] and made["pip_check"] is False
    assert pip["packages"][0] == str(wheel), "the caller's own is as it was"


def test_what_is_too_large_is_named(core: Core, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_PACKAGE_BYTES", 100)
    (tree / "data" / ".gitignore").unlink()
    with pytest.raises(ValueError, match=r"exceeds the maximum .* 'excludes' .* largest in .*: data/big.bin \(0.0"):
        packages.uploaded(packages.RayletUploads(core), {"working_dir": str(tree)})  # type: ignore[arg-type]
    assert core.messages == 0


@pytest.mark.parametrize("name", ["nowhere", "project/main.py"])
def test_what_is_no_directory(core: Core, tree: Path, name: str) -> None:
    with pytest.raises(ValueError, match="must be an existing directory or a zip package"):
        packages.uploaded(packages.RayletUploads(core), {"working_dir": str(tree.parent / name)})  # type: ignore[arg-type]


def test_what_cannot_be_stored(core: Core, tree: Path) -> None:
    core.error = "no room"
    with pytest.raises(exceptions.RuntimeEnvSetupError, match="project cannot be uploaded: no room"):
        packages.uploaded(packages.RayletUploads(core), {"working_dir": str(tree)})  # type: ignore[arg-type]
