"""The commands of docs/operations.md for backup and restore, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

from support.stack import ROOT, Stack

PAGE = (ROOT / "docs" / "operations.md").read_text()

MAKE = """
@ray.remote(num_cpus=0, max_restarts=-1, lifetime="detached", name="kept", namespace="n")
class Kept:
    def ping(self):
        return "pong"
ray.init()
report(answer=ray.get(Kept.remote().ping.remote()))
"""
FIND = """
ray.init()
report(answer=ray.get(ray.get_actor("kept", namespace="n").ping.remote(), timeout=60))
"""


def test_the_cluster_comes_back_from_one_archive(shaken: Stack, tmp_path: Path) -> None:
    scripts = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    back_up, restore = [script for script in scripts if "/volumes" in script]
    with shaken.driver(MAKE) as driver:
        assert driver.report() == {"answer": "pong"}
        assert driver.wait() == 0
    token = shaken.read("gcs", "/run/shoal/token")
    shaken.run_script(back_up, tmp_path)
    shaken.down()
    shaken.run_script(restore, tmp_path)
    assert shaken.read("gcs", "/run/shoal/token") == token
    with shaken.driver(FIND) as driver:
        assert driver.report() == {"answer": "pong"}
