"""Archives that come from elsewhere, unpacked: nothing lands outside, and nothing fills the disk."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path, PurePosixPath

from shoal_raylet.workers.environments.cache import Attempt, SetupFailed

#: What an archive unpacks to has at most so many bytes, in at most so many files.
MAX_UNPACKED_BYTES = 4 * 1024**3
MAX_FILES = 200_000
_STEP_BYTES = 1 << 20


def unpack(archive: Path, target: Path, attempt: Attempt, max_bytes: int = MAX_UNPACKED_BYTES) -> None:
    """A zip archive into ``target``, which exists. Links become files that hold where they lead.

    Raises: SetupFailed for what is no zip archive, is too large, or has names that lead elsewhere.
    """
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = zipped.infolist()
            if len(members) > MAX_FILES:
                raise SetupFailed(f"it has {len(members)} files, more than {MAX_FILES}")
            left = max_bytes
            for member in members:
                attempt.left()
                left -= _unpack(zipped, member, target, left)
                if left < 0:
                    raise SetupFailed(f"it unpacks to more than {max_bytes} bytes, at {member.filename}")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise SetupFailed(f"it is no zip archive that can be read: {error}") from error


def without_top(directory: Path) -> Path:
    """The one directory in it, where there is nothing else: archives of repositories have such."""
    inside = list(directory.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else directory


def _unpack(zipped: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, most: int) -> int:
    """How many bytes it had; one more than ``most`` = it has more."""
    name = PurePosixPath(member.filename)
    if name.is_absolute() or ".." in name.parts or "\\" in member.filename or "\0" in member.filename:
        raise SetupFailed(f"it has a file {member.filename!r}, which would land outside")
    path = target / name
    if member.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with zipped.open(member) as source, path.open("wb") as file:
        while block := source.read(_STEP_BYTES):
            written += len(block)
            if written > most:
                return written
            file.write(block)
    if (member.external_attr >> 16) & stat.S_IXUSR:
        path.chmod(0o755)
    return written
