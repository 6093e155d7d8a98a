from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from shoal_raylet.workers.environments.cache import Attempt, SetupFailed
from shoal_raylet.workers.environments.containers import Container, Containers, inherited

OTHER_PYTHON = 'shoal:["cpython-39", "3.9.1", null]'
OTHER_SHOAL = f'shoal:["{sys.implementation.cache_tag}", "3", "0.0.1"]'


def answering(directory: Path, cases: str) -> dict[str, str]:
    """The environment of a node whose docker does what a shell makes of these cases."""
    (directory / "docker").write_text(f'#!/bin/sh\ncase "$1" in {cases} esac\n')
    (directory / "docker").chmod(0o755)
    return {"PATH": f"{directory}:/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("cases", "text"),
    [
        (
            "image|info) echo permission denied; exit 1;;",
            "docker cannot be used by the node's user .*permission d",
        ),
        (
            "image|pull) echo not found; exit 1;;",
            "not have this image, and cannot pull it: docker pull ended .*not",
        ),
        ("image) echo id;; run) exit 127;;", "python3 does not run in it"),
        ("image) echo id;; run) echo '1.0';;", "python3 is no Python in it, but prints: 1.0"),
        (f"image) echo id;; run) echo '{OTHER_PYTHON}';;", "its python3 is Python 3.9.1, and the node's is"),
        (f"image) echo id;; run) echo '{OTHER_SHOAL}';;", "it has Shoal 0.0.1, and the node has"),
    ],
)
def test_why_an_image_cannot_be_used(cases: str, text: str, tmp_path: Path) -> None:
    containers = Containers([], answering(tmp_path, cases))
    with pytest.raises(SetupFailed, match=f"(?s){text}"):
        containers.find({"image": "x"}, (), Attempt(60.0, threading.Event()))


def test_a_node_without_an_engine_says_so(tmp_path: Path) -> None:
    with pytest.raises(SetupFailed, match="the node has neither docker nor podman: install one"):
        Containers([], {"PATH": str(tmp_path)}).find({"image": "x"}, (), Attempt(60.0, threading.Event()))


def test_no_value_and_no_token_is_in_the_command() -> None:
    container = Container("docker", "id", ("python3",), ("--gpus=all",), (Path("/session"),), (Path("/packages"),))
    node = {"SHOAL_LOG_LEVEL": "debug", "SHOAL_AUTH_TOKEN": "x", "SHOAL_AUTH_TOKEN_PATH": "y", "HOME": "/root"}
    command = container.command("name", inherited(node), "/work", ["--control-path", "/session/x"])
    assert [command[at + 1] for at, word in enumerate(command) if word == "--env"] == ["SHOAL_LOG_LEVEL"]
    assert "type=bind,source=/session,target=/session" in command
    image = command.index("id")
    assert command[image - 3 : image] == ["--gpus=all", "--entrypoint", "python3"]
    assert command[-3:] == ["/run/shoal-node/0", "--control-path", "/session/x"]
