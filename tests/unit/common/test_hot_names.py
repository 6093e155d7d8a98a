from __future__ import annotations

import subprocess
import sys

from shoal_common import hot_names


def test_a_module_runs_as_by_itself() -> None:
    command = [sys.executable, "-m", "shoal_common.hot_names", "json.tool", "--compact", "-"]
    done = subprocess.run(command, input='{"a": 1}', capture_output=True, text=True, check=True)
    assert done.stdout == '{"a":1}\n'


def test_names_are_the_ones_that_code_uses() -> None:
    assert all(name is sys.intern(str(name)) for name in hot_names._kept)
    names = hot_names._NAMES.split()
    assert names == sorted(set(names))
    assert all(part.isidentifier() for name in names for part in name.split("."))
