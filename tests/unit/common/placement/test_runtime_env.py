from __future__ import annotations

import json
import json.decoder
from typing import Any

import pytest

from shoal_common.placement.runtime_env import (
    MAX_BYTES,
    decode,
    encode,
    expanded,
    hook_bytes,
    is_remote,
    key,
    merged,
    package_digest,
    package_uri,
    pickled_hook,
    uploaded_wheel,
    validate,
    wheel_requirement,
)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"env_vars": ["A"]}, TypeError, r"must be of type Dict\[str, str\], got <class 'list'>"),
        ({"env_vars": {1: "a"}}, TypeError, "but the key 1 is of type <class 'int'>"),
        ({"env_vars": {"A": 1}}, TypeError, "but the value 1 is of type <class 'int'>"),
        ({"env_vars": {"A=B": "1"}}, ValueError, "no environment variable"),
        ({"env_vars": {"A": "\0"}}, ValueError, "no environment variable"),
        ({"env_var": {}}, ValueError, "unknown field 'env_var'. There are: env_vars"),
        (
            {"java_jars": ["x.jar"]},
            ValueError,
            "runtime_env\\['java_jars'\\] is not implemented by Shoal: there are no",
        ),
        ({"conda": 1}, TypeError, "runtime_env\\['conda'\\] must be of type str or dict, got <class 'int'>"),
        ({"conda": ""}, ValueError, "must name an environment of conda or a file, got ''"),
        ({"conda": {"packages": []}}, ValueError, "has \\['packages'\\], which conda does not know"),
        ({"conda": "x", "pip": ["a"]}, ValueError, "'conda' field of runtime_env cannot be specified at the same time"),
        ({"image_uri": 1}, TypeError, "must be of type str, got <class 'int'>"),
        ({"image_uri": "--privileged"}, ValueError, "must be the name of an image, got '--privileged'"),
        ({"image_uri": "x", "pip": ["a"]}, ValueError, "'image_uri' cannot be specified with 'pip'"),
        ({"image_uri": "x", "nsight": "default"}, ValueError, "'image_uri' cannot be specified with 'nsight'"),
        (
            {"image_uri": "x", "container": {"image": "x"}},
            ValueError,
            "'image_uri' cannot be specified with 'contain",
        ),
        ({"container": "x"}, TypeError, "must be a dictionary, got <class 'str'>"),
        ({"container": {}}, ValueError, "must have 'image', and can have 'run_options', got \\[\\]"),
        ({"container": {"image": "x", "worker_path": "y"}}, ValueError, "worker_path'\\] is not implemented by Shoal"),
        ({"container": {"image": "x", "run_options": "y"}}, TypeError, "must be of type List\\[str\\], got 'y'"),
        ({"nsight": "default", "preimport": ["x"]}, ValueError, "nothing can be imported ahead, by 'preimport'"),
        ({"nsight": "fast"}, ValueError, "must be 'default' or a dictionary of options of nsys, got 'fast'"),
        ({"_nsight": {"-t": "cuda"}}, ValueError, "has the option '-t': 'cuda': names without dashes"),
        ({"working_dir": 1}, TypeError, "`working_dir` must be a string, got <class 'int'>"),
        ({"working_dir": ""}, ValueError, "must not be empty"),
        ({"working_dir": "x.whl"}, ValueError, "a directory or a zip package"),
        ({"working_dir": "gs://b/x.zip"}, ValueError, "gs:// is not supported. There are: https, http, s3, file"),
        ({"working_dir": "https://h/x.rar"}, ValueError, "only .zip and .whl files"),
        ({"working_dir": "gcs://x.zip"}, ValueError, "no package that this cluster has made"),
        ({"py_modules": "x"}, TypeError, "`py_modules` must be a list of strings, local paths, or imported modules"),
        ({"py_modules": [1]}, TypeError, "or imported modules, got \\[1\\]"),
        ({"excludes": "x"}, TypeError, "must be of type List\\[str\\], got <class 'str'>"),
        ({"pip": 1}, TypeError, "runtime_env\\['pip'\\] must be of type str or List\\[str\\], got <class 'int'>"),
        ({"pip": [1]}, TypeError, "\\['packages'\\] must be of type List"),
        ({"pip": {"pip_check": True}}, ValueError, "must include field 'packages', but got {'pip_check': True}"),
        (
            {"pip": {"packages": [], "index": 1}},
            ValueError,
            "only have these fields: packages, pip_check",
        ),
        ({"pip": {"packages": [], "pip_check": 1}}, TypeError, "must be of type bool, got <class 'int'>"),
        ({"uv": {"packages": [], "uv_version": 1}}, TypeError, "must be of type str, got <class 'int'>"),
        ({"uv": {"packages": [], "uv_pip_install_options": "x"}}, TypeError, "must be of type List"),
        ({"pip": ["a"], "uv": ["b"]}, ValueError, "cannot be specified at the same time.\nspecified pip field: "),
        ({"config": 1}, TypeError, "must be a dictionary or a RuntimeEnvConfig, got <class 'int'>"),
        ({"config": {"setup_timeout_seconds": 0}}, ValueError, "greater than zero or equals to -1, got: 0"),
        ({"config": {"setup_timeout_seconds": 1.5}}, TypeError, "must be of type int, got <class 'float'>"),
        ({"config": {"eager_install": 1}}, TypeError, "eager_install must be a boolean, got <class 'int'>"),
        ({"config": {"log_files": ["x"]}}, ValueError, "log_files'\\] is not implemented by Shoal: read"),
        ({"config": {"eager": True}}, ValueError, "can only have the fields setup_timeout_seconds and eager_install"),
        ({"py_executable": 1}, TypeError, "`py_executable` must be a string, got <class 'int'>"),
        ({"py_executable": " "}, ValueError, "must not be empty"),
        ({"py_executable": "python '"}, ValueError, "`py_executable`: No closing quotation"),
        ({"py_executable": "python", "pip": ["a"]}, ValueError, "it cannot be specified with 'pip'"),
        ({"worker_process_setup_hook": 1}, TypeError, "must be a function or a string, got <class 'int'>"),
        ({"worker_process_setup_hook": "hook"}, ValueError, "must name a function as module.function, got 'hook'"),
        ({"preimport": "numpy"}, TypeError, "must be of type List\\[str\\], got 'numpy'"),
        ({"preimport": ["a b"]}, ValueError, "names modules, and 'a b' can be none"),
        ("env", TypeError, "must be a dictionary, got <class 'str'>"),
    ],
)
def test_what_is_refused(given: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        validate(given)


def test_packages_and_modules() -> None:
    uri = package_uri("a" * 64, ".whl")
    given = {"py_modules": ["src/x", uri, json, json.decoder], "working_dir": "https://h/x.zip?token=1"}
    made = validate(given)
    assert made["py_modules"] == ["src/x", uri, json.__path__[0], json.decoder.__file__]
    assert (package_digest(uri), package_digest(made["working_dir"])) == ("a" * 64, None)
    assert is_remote(uri) and is_remote(made["working_dir"]) and not is_remote("src/x")


def test_a_field_that_is_none_was_not_given() -> None:
    assert validate({"env_vars": None, "pip": None}) == {}


def test_children_merge_variables() -> None:
    parent = {"env_vars": {"A": "1", "B": "1"}}
    assert merged(parent, {"env_vars": {"B": "2"}}) == {"env_vars": {"A": "1", "B": "2"}}
    assert merged(parent, {}) == parent
    assert merged({}, parent) == parent
    assert parent == {"env_vars": {"A": "1", "B": "1"}}


def test_children_replace_every_other_field() -> None:
    assert merged({"pip": ["a"], "x": 1}, {"pip": ["b"]}) == {"pip": ["b"], "x": 1}
    assert merged({"py_executable": "a"}, {"uv": ["b"]}) == {"uv": ["b"]}, "one that says which interpreter"
    assert merged({"pip": ["a"]}, {"image_uri": "b"}) == {"image_uri": "b"}, "one that brings its own"
    assert merged({"pip": ["a"], "x": 1}, {"uv": ["b"]}) == {"uv": ["b"], "x": 1}, "one that installs packages"


def test_packages_to_install() -> None:
    assert validate({"pip": ["a", "b==1"]}) == {"pip": {"packages": ["a", "b==1"], "pip_check": False}}
    given = {"packages": ["a"], "uv_check": True, "uv_version": "==0.5", "uv_pip_install_options": ["--no-cache"]}
    assert validate({"uv": given}) == {"uv": given}


def test_defaults_of_config() -> None:
    made = validate({"config": {"setup_timeout_seconds": -1}})
    assert made == {"config": {"setup_timeout_seconds": -1, "eager_install": True}}


def test_a_hook_travels() -> None:
    hook = pickled_hook(b"\0pickle")
    assert decode(encode({"worker_process_setup_hook": hook})) == {"worker_process_setup_hook": hook}
    assert (hook_bytes(hook), hook_bytes("module.function")) == (b"\0pickle", None)


def test_uploaded_wheels() -> None:
    requirement = wheel_requirement(package_uri("a" * 64, ".whl"), "x-1-py3-none-any.whl")
    assert uploaded_wheel(requirement) == ("a" * 64, "x-1-py3-none-any.whl")
    others = ["x==1", "https://h/x.whl#sha256=1", wheel_requirement(package_uri("a" * 64, ".whl"), "../x.whl")]
    assert [uploaded_wheel(other) for other in others] == [None] * 3


def test_the_same_environment_has_one_document() -> None:
    document = encode({"env_vars": {"B": "2", "A": "1"}})
    assert document == encode({"env_vars": {"A": "1", "B": "2"}}) == '{"env_vars":{"A":"1","B":"2"}}'
    assert decode(document) == {"env_vars": {"A": "1", "B": "2"}}


def test_what_asks_for_nothing_is_no_environment() -> None:
    assert encode({}) == encode({"env_vars": {}}) == ""
    assert decode("") == {}
    assert key("") == key(encode({"config": {"eager_install": False}})) == ""


def test_keys_tell_environments_apart_but_not_their_config() -> None:
    one, other = encode({"env_vars": {"A": "1"}}), encode({"env_vars": {"A": "2"}})
    assert key(one) != key(other)
    assert key(encode({"env_vars": {"A": "1"}, "config": {"setup_timeout_seconds": 1}})) == key(one)


def test_a_document_is_bounded() -> None:
    with pytest.raises(ValueError, match=f"at most {MAX_BYTES} bytes"):
        encode({"env_vars": {"A": "x" * MAX_BYTES}})


def test_variables_are_expanded() -> None:
    variables = {"PATH": "/new:${PATH}", "A": "$HOME/${NONE}x$NONE", "B": "${A}"}
    assert expanded(variables, {"PATH": "/bin", "HOME": "/root"}) == {
        "PATH": "/new:/bin",
        "A": "/root/x$NONE",
        "B": "/root/x$NONE",
    }
