"""Runs once before everything else: writes the secrets of a deployment into its volumes. What is there already stays.

The volumes are below /volumes. Mounting them here first is also what gives them to the user of the containers: an empty
volume takes over the owner of the folder in the image.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

VOLUMES = Path("/volumes")


def write_once(path: Path, text: str) -> str:
    """What the file says, which is ``text`` when it was not there."""
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        with open(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o400), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    return path.read_text()


def main() -> None:
    token = write_once(VOLUMES / "token" / "token", secrets.token_hex(32))
    # nats-server takes its token from a flag, which `docker inspect` shows, or from its configuration.
    write_once(VOLUMES / "token" / "nats.conf", f'authorization {{ token: "{token}" }}\nhttp: "127.0.0.1:8222"\n')
    write_once(VOLUMES / "minio-credentials" / "user", "shoal-" + secrets.token_hex(4))
    write_once(VOLUMES / "minio-credentials" / "password", secrets.token_hex(32))


if __name__ == "__main__":
    main()
