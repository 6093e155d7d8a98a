"""``compat/``: the module ``ray`` that is Shoal."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import pkgutil
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import shoal
from shoal.util import node_address

COMPAT = Path(__file__).parents[3] / "compat"


def forget() -> None:
    """Of the module under test: other tests run in this process, and a real Ray may be installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        del sys.modules[name]
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__.partition(".")[0] != "ray"]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(COMPAT / "src")
    forget()
    yield importlib.import_module("ray")
    forget()


def test_every_public_name_is_the_one_of_shoal(ray: Any) -> None:
    assert ray.__all__ == shoal.__all__
    assert [name for name in shoal.__all__ if getattr(ray, name) is not getattr(shoal, name)] == []
    found: dict[str, Any] = {}
    exec("from ray import *", found)
    assert found.keys() - {"__builtins__"} == set(shoal.__all__)


def public_submodules(package: ModuleType) -> list[str]:
    found = []
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if not module.name.rpartition(".")[2].startswith("_"):
            found.append(module.name)
            if module.ispkg:
                found += public_submodules(importlib.import_module(module.name))
    return found


def test_every_submodule_is_the_one_of_shoal_which_stays_as_it_was(ray: Any) -> None:
    programs = {"shoal.cli", "shoal.worker", "shoal.worker_template"}
    names = set(public_submodules(shoal)) - programs
    assert {"shoal.util.queue", "shoal.cluster_utils", "shoal.runtime_context"} <= names
    for name in sorted(names):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue  # it needs what is not installed
        assert importlib.import_module("ray" + name.removeprefix("shoal")) is module
        assert (module.__name__, module.__spec__ and module.__spec__.name) == (name, name)
    assert ray.util.queue is shoal.util.queue


def test_submodules_are_found_by_either_way_of_import(ray: Any) -> None:
    found: dict[str, Any] = {}
    exec(
        "import ray.util.scheduling_strategies as a\nfrom ray.util import queue as b\nfrom ray import actor as c", found
    )
    assert (found["a"], found["b"], found["c"]) == (shoal.util.scheduling_strategies, shoal.util.queue, shoal.actor)
    assert ray.runtime_context is sys.modules["shoal.runtime_context"]  # nobody has imported it by this name


def test_pickles_and_types_are_those_of_shoal(ray: Any) -> None:
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy("ab" * 16, soft=True)
    forget()  # who has only Shoal can read it
    assert type(pickle.loads(pickle.dumps(strategy))) is type(strategy)
    assert issubclass(ray.exceptions.RayTaskError, shoal.exceptions.TaskError)


def test_its_version_is_that_of_the_stub(ray: Any) -> None:
    stub = tomllib.loads((COMPAT / "stub" / "pyproject.toml").read_text())["project"]
    assert ray.__version__ == stub["version"]
    assert re.fullmatch(r"2\.\d+\.\d+", ray.__version__)
    distribution = tomllib.loads((COMPAT / "pyproject.toml").read_text())["project"]
    assert stub["dependencies"] == [f"{distribution['name']}=={distribution['version']}"]
    assert distribution["dependencies"] == [f"shoal=={distribution['version']}"]
    assert distribution["version"] == shoal.__version__


def test_what_libraries_touch_inside(ray: Any) -> None:
    assert ray._private.services.get_node_ip_address is node_address.get_node_ip_address
    assert ray._private.worker.global_worker.mode is None
    assert (ray.SCRIPT_MODE, ray.WORKER_MODE) == (0, 1)
    assert importlib.import_module("ray._private.worker").BaseContext.__name__ == "Context"
    assert importlib.import_module("ray.autoscaler.sdk") is shoal.autoscaler.sdk
    assert ray._raylet.ObjectRefGenerator is shoal.ObjectRefGenerator
    context = ray.data.DatasetContext.get_current()
    context.execution_options.resource_limits = ray.data.ExecutionResources.for_limits(cpu=2)
    assert ray.data.DatasetContext.get_current().execution_options.resource_limits.cpu == 2
    with pytest.raises(NotImplementedError, match=r"Ray Data .*docs/coming-from-ray\.md"):
        ray.data.from_pandas_refs([])


@pytest.mark.parametrize(
    "program",
    [
        "import ray.train",
        "import ray.data.extensions",
        "from ray import tune",
        "from ray.data import Dataset",
        "import ray._core",
        "import ray.worker_template",
        "from ray._private import ray_option_utils",
        "from ray._private.services import get_ray_address",
    ],
)
def test_what_is_not_there_is_an_import_error_that_names_the_page(ray: Any, program: str) -> None:
    with pytest.raises(ImportError, match=r"docs/coming-from-ray\.md"):
        exec(program, {})


@pytest.mark.parametrize("expression", ["ray.train", "ray._private.gcs_utils", "ray._private.worker.RAY_GET_STUFF"])
def test_or_an_attribute_error(ray: Any, expression: str) -> None:
    with pytest.raises(AttributeError, match=r"has no attribute .*docs/coming-from-ray\.md"):
        eval(expression, {"ray": ray})


def test_a_missing_name_of_ray_says_what_to_do_by_this_name_too(ray: Any) -> None:
    with pytest.raises(AttributeError, match="shoal debug"):
        ray.util.ray_debugpy  # noqa: B018
    assert not hasattr(ray.util, "ray_debugpy")


def installed(directory: Path, *requirements: str) -> str:
    metadata = directory / "ray-2.60.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    lines = ["Metadata-Version: 2.4", "Name: ray", "Version: 2.60.0", *(f"Requires-Dist: {r}" for r in requirements)]
    metadata.write_text("\n".join(lines) + "\n")
    return str(directory)


def test_it_refuses_to_stand_over_a_real_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(COMPAT / "src")
    monkeypatch.syspath_prepend(installed(tmp_path, "click>=7", 'numpy; extra == "default"'))
    forget()
    with pytest.raises(ImportError, match=rf"(?s){tmp_path}.*only one.*pip uninstall ray"):
        importlib.import_module("ray")
    forget()


def test_its_own_stub_is_no_real_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(COMPAT / "src")
    monkeypatch.syspath_prepend(installed(tmp_path, "shoal-ray==0.1.0"))
    forget()
    assert importlib.import_module("ray").get is shoal.get
    forget()
