"""Local directories, archives and modules of a runtime environment: packed, and uploaded once by what is in them.

A package is a zip archive (or a wheel, which is one) named after the SHA-256 of its bytes, ``gcs://_shoal_pkg_…``:
nodes find it in the cluster's blobs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from shoal import _current, exceptions
from shoal._session.ignored_files import IgnoredFiles
from shoal._values.serialization import dumps_function
from shoal_common.channel import frames
from shoal_common.placement.runtime_env import (
    ARCHIVE_SUFFIXES,
    INSTALLERS,
    MAX_PACKAGE_BYTES,
    PACKAGE_PART_BYTES,
    is_remote,
    package_uri,
    pickled_hook,
    wheel_requirement,
)

if TYPE_CHECKING:
    from shoal._owner.core_worker import CoreWorker

#: Never uploaded.
_ALWAYS_LEFT_OUT = (".git/", ".venv/", "venv/", "__pycache__/")
#: Their patterns count in the directory that they are in, and below.
_IGNORE_FILES = (".gitignore", ".rayignore", ".shoalignore")
#: So many of the largest files are named when a directory is too large.
_NAMED = 5
#: The raylet has stored a part by then, in seconds.
_ANSWER_S = 120.0
#: Of a file in an archive: what was changed when does not count.
_DATE = (1980, 1, 1, 0, 0, 0)


class Uploads(Protocol):
    """Where packages go."""

    #: Of the session; what another one has stored is not known to be there.
    session: Any

    def store(self, file: IO[bytes], digest: str, suffix: str, size: int, path: Path) -> None:
        """Unless it is there. ``file`` is at its beginning; ``path`` is for messages.

        Raises: RuntimeEnvSetupError."""


#: What was uploaded from a path, and how it was then: the session, sizes and names, times of the last change.
_known: dict[tuple[Path, str], tuple[Any, str]] = {}


def uploaded(to: Uploads, environment: Mapping[str, Any]) -> dict[str, Any]:
    """The environment with packages in place of what is on this machine only.

    Raises: TypeError (a hook that cannot be pickled), ValueError (not there, no archive, larger than
    MAX_PACKAGE_BYTES), RuntimeEnvSetupError (cannot be stored).
    """
    made = dict(environment)
    excludes = made.pop("excludes", [])
    if "working_dir" in made:
        made["working_dir"] = _uploaded(to, made["working_dir"], excludes, as_module=False)
    if "py_modules" in made:
        made["py_modules"] = [_uploaded(to, each, excludes, as_module=True) for each in made["py_modules"]]
    hook = made.get("worker_process_setup_hook")
    if callable(hook):
        made["worker_process_setup_hook"] = pickled_hook(dumps_function(hook)[0])
    for tool in INSTALLERS:
        if tool in made:
            packages = [_requirement(to, each) for each in made[tool]["packages"]]
            made[tool] = {**made[tool], "packages": packages}
    return made


def _requirement(to: Uploads, requirement: str) -> str:
    """A wheel of this machine is uploaded: what is installed is told by what is in it, and not by its name."""
    path = Path(requirement)
    if path.suffix == ".whl" and path.is_file():
        return wheel_requirement(_uploaded(to, requirement, [], as_module=True), path.name)
    return requirement


def _uploaded(to: Uploads, source: str, excludes: Sequence[str], *, as_module: bool) -> str:
    """The package's URI. ``as_module``: a directory is a package to import, and not what is in it."""
    if is_remote(source):
        return source
    path = Path(source).expanduser().absolute()
    if not path.exists() or (path.is_file() and path.suffix not in (*ARCHIVE_SUFFIXES, *([".py"] * as_module))):
        kinds = "directory, .zip, .whl or .py file" if as_module else "directory or a zip package"
        raise ValueError(f"directory {source} must be an existing {kinds}")
    top = f"{path.name}/" if as_module else ""
    files = [(path, path.name)] if path.is_file() else [(each, top + at) for each, at in _files(path, excludes)]
    sizes = [(each.stat().st_size, at) for each, at in files]
    as_it_is = (to.session, [*sizes, *(each.stat().st_mtime_ns for each, _ in files)])
    known = _known.get((path, top))
    if known is not None and known[0] == as_it_is:
        return known[1]
    _check_size(path, sizes)
    import tempfile  # as zipfile below: most processes pack nothing, and each would have them

    with tempfile.TemporaryFile() as file:
        if path.is_file() and path.suffix in ARCHIVE_SUFFIXES:
            with path.open("rb") as archive:
                shutil.copyfileobj(archive, file)
        else:
            _pack(file, files)
        uri = _upload(to, file, path.suffix if path.suffix == ".whl" else ".zip", path)
    _known[path, top] = as_it_is, uri
    return uri


def _files(root: Path, excludes: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """The files to upload and their paths below ``root``, with slashes, sorted."""
    patterns: dict[str, IgnoredFiles] = {}
    first = IgnoredFiles([*_ALWAYS_LEFT_OUT, *excludes])
    for directory, directories, names in os.walk(root, followlinks=False):
        below = Path(directory).relative_to(root).as_posix()
        below = "" if below == "." else f"{below}/"
        lines = [
            line
            for name in _IGNORE_FILES
            if name in names
            for line in Path(directory, name).read_text("utf-8", "replace").splitlines()
        ]
        if lines:
            patterns[below] = IgnoredFiles(lines)

        def left_out(path: str, is_directory: bool) -> bool:
            if first.decides(path, is_directory=is_directory):
                return True
            for at in sorted(patterns, key=len, reverse=True):
                if path.startswith(at):
                    decided = patterns[at].decides(path[len(at) :], is_directory=is_directory)
                    if decided is not None:
                        return decided
            return False

        directories[:] = sorted(each for each in directories if not left_out(below + each, True))
        for name in sorted(names):
            if not left_out(below + name, False) and Path(directory, name).is_file():
                yield Path(directory, name), below + name


def _pack(file: IO[bytes], files: Sequence[tuple[Path, str]]) -> None:
    """The same files make the same bytes."""
    import zipfile

    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path, at in files:
            info = zipfile.ZipInfo(at, _DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o755 if os.access(path, os.X_OK) else 0o644) << 16
            with path.open("rb") as source, archive.open(info, "w") as target:
                while block := source.read(1 << 20):
                    target.write(block)


def _check_size(root: Path, sizes: Sequence[tuple[int, str]]) -> None:
    """Raises: ValueError."""
    total = sum(size for size, _ in sizes)
    if total <= MAX_PACKAGE_BYTES:
        return
    largest = ", ".join(f"{at} ({size / (1 << 20):.1f} MiB)" for size, at in sorted(sizes, reverse=True)[:_NAMED])
    raise ValueError(
        f"Package size ({total / (1 << 20):.2f}MiB) exceeds the maximum size of {MAX_PACKAGE_BYTES / (1 << 20):.2f}MiB"
        ". You can exclude large files using the 'excludes' option to the runtime_env or provide a remote URI of a zip "
        f"file using protocols such as 's3://', 'https://'. The largest in {root}: {largest}"
    )


def _upload(to: Uploads, file: IO[bytes], suffix: str, path: Path) -> str:
    size = file.tell()
    file.seek(0)
    summed = hashlib.sha256()
    while block := file.read(1 << 20):
        summed.update(block)
    file.seek(0)
    to.store(file, summed.hexdigest(), suffix, size, path)
    return package_uri(summed.hexdigest(), suffix)


class RayletUploads:
    """By way of this process's node."""

    def __init__(self, core: CoreWorker) -> None:
        self._core = core
        self.session = _current.epoch

    def store(self, file: IO[bytes], digest: str, suffix: str, size: int, path: Path) -> None:
        if self._ask(path, lambda number: frames.PackageFind(number, digest)).found:
            return
        for part in range(-(-size // PACKAGE_PART_BYTES)):
            data = file.read(PACKAGE_PART_BYTES)
            self._ask(path, lambda number, p=part, d=data: frames.PackagePut(number, digest, p, d))
        # What says that all of it is there comes last.
        self._ask(path, lambda number: frames.PackagePut(number, digest, -1, str(size).encode()))

    def _ask(self, path: Path, make: Any) -> frames.PackageDone:
        core = self._core
        answers = core.questions.ask([core.node_id], make, _ANSWER_S)
        reason = f"the raylet did not answer in {_ANSWER_S:g} s" if not answers else answers[0].error
        if reason:
            raise exceptions.RuntimeEnvSetupError(f"{path} cannot be uploaded: {reason}")
        answer: frames.PackageDone = answers[0]
        return answer
