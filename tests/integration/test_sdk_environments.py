"""Runtime environments on a small cluster: files and modules that are brought to the workers."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.processes import eventually
from support.wheels import make_wheel

import shoal
from shoal import exceptions
from shoal_common.runtime_env_plugins import VARIABLE, plugins

#: Stands in for NVIDIA's program: the command runs as its child, then the report is written.
NSYS = """
import subprocess, sys
words = sys.argv[2:]
options, words = dict(zip(words[:4:2], words[1:4:2])), words[4:]
assert sys.argv[1] == "profile" and set(options) == {"-t", "-o"}, sys.argv
code = subprocess.run([word for word in words if word != "--stop-on-exit=true"], close_fds=False).returncode
open(options["-o"].replace("%p", "1") + ".nsys-rep", "w").close()
sys.exit(code)
"""
#: Stands in for conda, as far as the commands go that Shoal uses: environments are virtual ones, packages are files.
CONDA = """
import json, os, sys, sysconfig, venv
from pathlib import Path
known = Path(__file__).parents[1] / "envs" / "known"

def make(prefix, packages):
    venv.create(prefix, symlinks=True)
    for name in packages:
        site = sysconfig.get_path("purelib", "venv", {"base": str(prefix)})
        Path(site, name + ".py").write_text(f"VALUE = {str(prefix)!r}")

match sys.argv[1:]:
    case ["env", "list", "--json"]:
        if not known.exists():
            make(known, ["known_package"])
        print(json.dumps({"envs": ["/root", str(known)]}))
    case ["env", "create", "--prefix", prefix, "--file", file]:
        if "impossible" in (packages := json.loads(Path(file).read_text())["dependencies"]):
            sys.exit("ResolvePackageNotFound: impossible")
        make(Path(prefix), [each for each in packages if "=" not in each])
    case ["run", "--prefix", prefix, "python", *arguments]:
        os.environ |= {"CONDA_PREFIX": prefix, "PATH": prefix + "/bin:" + os.environ["PATH"]}
        os.execv(prefix + "/bin/python", ["python", *arguments])
    case other:
        sys.exit(f"unknown: {other}")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    for name, text in {
        "work/shipped_helper.py": "NAME = 'of the job'",
        "work/data.txt": "data",
        "work/left_out.bin": "x",
        "other/shipped_helper.py": "NAME = 'of the task'",
        "modules/shipped_package/__init__.py": "VALUE = 1",
        "plugins/things_plugin.py": """
from shoal.runtime_env import RuntimeEnvPlugin

class Plugin(RuntimeEnvPlugin):
    name = "things"

    def get_uris(self, runtime_env):
        return runtime_env["things"]

    async def create(self, uri, runtime_env, context, logger):
        if uri == "bad":
            raise ValueError("there is no such thing")
        return 0

    def modify_context(self, uris, runtime_env, context, logger):
        context.env_vars["THINGS"] = ",".join(uris)
""",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name, text in (("nsys", NSYS), ("conda", CONDA)):
        (root / "bin" / name).parent.mkdir(exist_ok=True)
        (root / "bin" / name).write_text(f"#!{sys.executable}\n{text}")
        (root / "bin" / name).chmod(0o755)
    with zipfile.ZipFile(root / "shipped_wheel-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("shipped_wheel.py", "VALUE = 2")
    return root


@pytest.fixture(scope="module", autouse=True)
def cluster(project: Path) -> Iterator[None]:
    environment = {"working_dir": str(project / "work"), "excludes": ["*.bin"]}
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="envs-", dir="/tmp"))
        # What is kept for later sessions ends with it.
        plugins.cache_clear()
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.syspath_prepend(str(project / "plugins"))
        patch.setenv("PYTHONPATH", str(project / "plugins"))
        patch.delenv("CONDA_EXE", raising=False)
        patch.setenv("PATH", f"{project / 'bin'}:{os.environ['PATH']}")
        patch.setenv(VARIABLE, '[{"class": "things_plugin.Plugin"}]')
        shoal.init("local", num_cpus=4, logging_level="ERROR", runtime_env=environment, _temp_dir=directory)
        yield
        shoal.shutdown()
    plugins.cache_clear()


@shoal.remote
def look() -> tuple[list[str], str]:
    import shipped_helper

    return sorted({*os.listdir()} - {"__pycache__"}), shipped_helper.NAME


def test_the_working_directory_of_the_job() -> None:
    assert shoal.get(look.remote()) == (["data.txt", "shipped_helper.py"], "of the job")
    assert shoal.get_runtime_context().runtime_env.keys() == {"working_dir"}


def test_a_task_with_its_own(project: Path) -> None:
    own = look.options(runtime_env={"working_dir": str(project / "other")})
    assert shoal.get(own.remote()) == (["shipped_helper.py"], "of the task")
    assert shoal.get(look.remote())[1] == "of the job"


def test_a_function_that_goes_elsewhere_brings_its_files(project: Path, tmp_path: Path) -> None:
    (tmp_path / "shipped_helper.py").write_text("NAME = 'brought along'")
    own = look.options(runtime_env={"working_dir": str(tmp_path)})

    @shoal.remote
    def call() -> str:
        (tmp_path / "shipped_helper.py").unlink()  # as on another machine
        tmp_path.rmdir()
        name: str = shoal.get(own.remote())[1]
        return name

    assert shoal.get(call.remote()) == "brought along"


def test_one_that_vanishes_while_it_is_in_use_is_made_again(project: Path) -> None:
    """As by somebody who cleans up: workers that are there fail, until the node has noticed."""
    own = {"working_dir": str(project / "other"), "env_vars": {"CLEANED": "up"}}

    @shoal.remote(runtime_env=own)
    def where() -> str:
        return os.getcwd()

    directory = Path(shoal.get(where.remote()))
    shutil.rmtree(directory.parent)

    def works() -> bool:
        try:
            return shoal.get(where.remote()) == str(directory)
        except FileNotFoundError:
            return False

    eventually(works, "the directory is not there again")


def test_modules_of_an_actor(project: Path) -> None:
    @shoal.remote
    class Actor:
        def values(self) -> Any:
            import shipped_helper
            import shipped_package
            import shipped_wheel

            return shipped_package.VALUE, shipped_wheel.VALUE, shipped_helper.NAME

    modules = [str(project / "modules" / "shipped_package"), str(project / "shipped_wheel-1-py3-none-any.whl")]
    actor = Actor.options(runtime_env={"py_modules": modules}).remote()
    assert shoal.get(actor.values.remote()) == (1, 2, "of the job")


def test_an_archive_from_elsewhere(project: Path) -> None:
    with zipfile.ZipFile(project / "repository.zip", "w") as archive:
        archive.writestr("repository-main/shipped_helper.py", "NAME = 'downloaded'")
    own = look.options(runtime_env={"working_dir": f"file://{project}/repository.zip"})
    assert shoal.get(own.remote()) == (["shipped_helper.py"], "downloaded")


def test_installed_packages(project: Path) -> None:
    wheel = make_wheel(project, "shoal_installed", "VALUE = 1")

    @shoal.remote
    class Actor:
        def value(self) -> Any:
            import shoal_installed

            return shoal_installed.VALUE, shoal.get(look.remote())[1]

    actor = Actor.options(runtime_env={"pip": [str(wheel)]}).remote()
    assert shoal.get(actor.value.remote()) == (1, "of the job")


def test_an_interpreter_of_its_own_with_modules_imported(project: Path) -> None:
    script = project / "python.sh"
    script.write_text(f'#!/bin/sh\nBY_SCRIPT=1 exec {sys.executable} "$@"\n')
    script.chmod(0o755)

    @shoal.remote
    def found() -> tuple[str | None, bool]:
        return os.environ.get("BY_SCRIPT"), "shipped_helper" in sys.modules

    environment = {"py_executable": str(script), "preimport": ["shipped_helper"]}
    assert shoal.get(found.options(runtime_env=environment).remote()) == ("1", True)
    assert shoal.get(found.remote())[0] is None


def test_an_environment_of_conda(project: Path) -> None:
    @shoal.remote
    def found(name: str) -> tuple[str, str | None, str]:
        value = str(importlib.import_module(name).VALUE)
        return value, os.environ.get("CONDA_PREFIX"), shoal.get(look.remote())[1]

    named = found.options(runtime_env={"conda": "known"})
    prefix = str(project / "envs" / "known")
    assert shoal.get(named.remote("known_package")) == (prefix, prefix, "of the job")
    made = found.options(runtime_env={"conda": {"dependencies": ["made_package"]}})
    value, prefix, _ = shoal.get(made.remote("made_package"))
    assert value == prefix != str(project / "envs" / "known")


def test_each_worker_is_profiled_by_itself() -> None:
    @shoal.remote(max_calls=1)
    def parent() -> list[str]:
        return Path(f"/proc/{os.getppid()}/cmdline").read_text().split("\0")

    words = shoal.get(parent.options(runtime_env={"_nsight": "default"}).remote())
    assert words[2:5] == ["profile", "-t", "cuda,cudnn,cublas,nvtx"]
    report = Path(words[words.index("-o") + 1].replace("%p", "1") + ".nsys-rep")
    assert report.match("logs/nsight/worker_process_1.nsys-rep")
    eventually(report.exists, "the report of the worker that has ended is written")


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"py_executable": "/nowhere/python"}, "No such file or directory: '/nowhere/python'"),
        ({"preimport": ["no_such_module"]}, "No module named 'no_such_module'"),
        ({"worker_process_setup_hook": "shipped_helper.nothing"}, "has no attribute 'nothing'"),
        ({"conda": "unknown"}, "conda unknown: .*/conda knows no environment of this name: it has known, root"),
        (
            {"conda": {"dependencies": ["impossible"]}},
            "conda env create ended with exit code 1:\nResolvePackageNotFound",
        ),
        ({"nsight": {"x": "1"}}, "nsight: nsys ended with exit code 1:(.|\n)*AssertionError"),
    ],
    ids=["interpreter", "module", "hook", "conda name", "conda content", "profiler"],
)
def test_processes_that_do_not_start_say_why(environment: dict[str, Any], text: str) -> None:
    with pytest.raises(exceptions.RuntimeEnvSetupError, match=text):
        shoal.get(look.options(runtime_env=environment).remote())


def test_a_field_that_a_plugin_brings() -> None:
    @shoal.remote
    def things() -> str | None:
        return os.environ.get("THINGS")

    environment = {"things": ["a", "b"], "env_vars": {"A": "1"}}
    assert shoal.get(things.options(runtime_env=environment).remote()) == "a,b"
    with pytest.raises(exceptions.RuntimeEnvSetupError, match="a plugin failed: ValueError: there is no such thing"):
        shoal.get(things.options(runtime_env={"things": ["bad"]}).remote())


def test_what_cannot_be_had_says_so() -> None:
    environment = {"working_dir": "https://127.0.0.1:9/x.zip"}
    text = r"node [0-9a-f]{32}: working_dir https://127.0.0.1:9/x.zip: it cannot be downloaded"
    with pytest.raises(exceptions.RuntimeEnvSetupError, match=text):
        shoal.get(look.options(runtime_env=environment).remote())

    @shoal.remote(runtime_env=environment)
    class Actor:
        def method(self) -> None: ...

    with pytest.raises(exceptions.RuntimeEnvSetupError, match=text):
        shoal.get(Actor.remote().method.remote())
