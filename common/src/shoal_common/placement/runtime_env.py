"""Runtime environments: what a field may hold, what a child inherits, and the document that travels. Pure.

An environment is a dictionary by field, as users write it. What its worker processes need of it travels as a
*document*: JSON with sorted keys, "" for the environment of a job that names none. Documents that have the same *key*
mean the same processes, whatever their ``config`` says of how long to try.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import shlex
from collections.abc import Callable, Collection, Mapping
from types import ModuleType
from typing import Any

#: What packages may be.
ARCHIVE_SUFFIXES = (".zip", ".whl")
#: A directory or archive that is uploaded has at most so many bytes, packed or not.
MAX_PACKAGE_BYTES = 500 * 1024 * 1024
#: Packages are stored in parts of so many bytes.
PACKAGE_PART_BYTES = 8 * 1024 * 1024
#: Of the URIs of packages in the cluster's blobs: this, and the SHA-256 of their bytes.
_PACKAGE = re.compile(r"gcs://_shoal_pkg_([0-9a-f]{64})(\.zip|\.whl)")
#: Where else packages may come from.
_REMOTE = ("https", "http", "s3", "file")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")

#: A document has at most so many bytes: it travels with each first demand for a worker.
MAX_BYTES = 256 * 1024

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)


def _env_vars(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError(f"runtime_env['env_vars'] must be of type Dict[str, str], got {type(value)}")
    for name, text in value.items():
        if not isinstance(name, str):
            raise TypeError(
                f"runtime_env['env_vars'] must be of type Dict[str, str], but the key {name} is of type {type(name)}"
            )
        if not isinstance(text, str):
            raise TypeError(
                f"runtime_env['env_vars'] must be of type Dict[str, str], but the value {text} is of type {type(text)}"
            )
        if not name or "=" in name or "\0" in name or "\0" in text:
            raise ValueError(f"runtime_env['env_vars'] has {name!r}, which no environment variable can be")
    return dict(value)


def _location(field: str, value: str) -> str:
    """A path of this machine, or a URI. Raises: ValueError."""
    scheme, separator, _ = value.partition("://")
    if not separator:
        if not value:
            raise ValueError(f"`{field}` must not be empty")
        return value
    if scheme == "gcs":
        if not _PACKAGE.fullmatch(value):
            raise ValueError(f"`{field}`: {value!r} is no package that this cluster has made")
    elif scheme not in _REMOTE:
        raise ValueError(f"`{field}`: {scheme}:// is not supported. There are: {', '.join(_REMOTE)}")
    elif not value.partition("?")[0].endswith(ARCHIVE_SUFFIXES):
        raise ValueError(f"`{field}`: only {' and '.join(ARCHIVE_SUFFIXES)} files are supported, got {value!r}")
    return value


def _working_dir(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"`working_dir` must be a string, got {type(value)}.")
    if value.endswith(".whl"):
        raise ValueError(f"`working_dir` must be a directory or a zip package, got {value!r}")
    return _location("working_dir", value)


def _py_modules(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str | ModuleType) for each in value):
        raise TypeError(
            "`py_modules` must be a list of strings, local paths, or imported modules, "
            f"got {value if isinstance(value, list) else type(value)}."
        )
    return [_location("py_modules", _module_path(each) if isinstance(each, ModuleType) else each) for each in value]


def _module_path(module: ModuleType) -> str:
    """Where it lies. Raises: ValueError."""
    where = list(getattr(module, "__path__", ())) or [module.__file__]
    if len(where) != 1 or not where[0]:
        raise ValueError(f"`py_modules`: the module {module.__name__} is not in one directory or file: {where}")
    return str(where[0])


def _excludes(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError(
            "runtime_env['excludes'] must be of type List[str], got "
            f"{value if isinstance(value, list) else type(value)}"
        )
    return list(value)


#: Fields that install packages: a task has one of them.
INSTALLERS = ("pip", "uv")
#: Fields that name the image that workers run in.
_IMAGES = ("image_uri", "container")
#: Fields that say with which packages, and which Python, workers run: a task has one of them.
_PACKAGES = (*INSTALLERS, "conda")
_INTERPRETERS = (*_PACKAGES, "py_executable", *_IMAGES)
#: An environment is made by then, in seconds, unless its ``config`` says otherwise.
DEFAULT_SETUP_TIMEOUT_S = 600


def _installer(tool: str, options: str) -> Callable[[Any], dict[str, Any]]:
    """Of ``pip`` or ``uv``; ``options`` is what theirs are called."""
    names = ("packages", f"{tool}_check", options, f"{tool}_version")

    def accept(value: Any) -> dict[str, Any]:
        if isinstance(value, list):
            value = {"packages": value}
        if not isinstance(value, dict):
            raise TypeError(f"runtime_env['{tool}'] must be of type str or List[str], got {type(value)}")
        if not value.keys() <= set(names):
            raise ValueError(
                f"runtime_env['{tool}'] can only have these fields: {', '.join(names)}, but got: {list(value)}"
            )
        if "packages" not in value:
            raise ValueError(f"runtime_env['{tool}'] must include field 'packages', but got {value}")
        made = {"packages": value["packages"], f"{tool}_check": value.get(f"{tool}_check", False)}
        made |= {name: value[name] for name in names[2:] if value.get(name) is not None}
        for name in ("packages", options):
            texts = made.get(name, [])
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise TypeError(f"runtime_env['{tool}']['{name}'] must be of type List[str], got {texts!r}")
        if not isinstance(made[f"{tool}_check"], bool):
            kind = type(made[f"{tool}_check"])
            raise TypeError(f"runtime_env['{tool}']['{tool}_check'] must be of type bool, got {kind}")
        if not isinstance(made.get(f"{tool}_version", ""), str):
            kind = type(made[f"{tool}_version"])
            raise TypeError(f"runtime_env['{tool}']['{tool}_version'] must be of type str, got {kind}")
        return made

    return accept


def _config(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"runtime_env['config'] must be a dictionary or a RuntimeEnvConfig, got {type(value)}")
    if unknown := sorted(value.keys() - {"setup_timeout_seconds", "eager_install", "log_files"}):
        raise ValueError(
            f"runtime_env['config'] can only have the fields setup_timeout_seconds and eager_install, but got {unknown}"
        )
    if value.get("log_files"):
        raise ValueError("runtime_env['config']['log_files'] is not implemented by Shoal: read the files in a task.")
    timeout = value.get("setup_timeout_seconds", DEFAULT_SETUP_TIMEOUT_S)
    if isinstance(timeout, bool) or not isinstance(timeout, int):
        raise TypeError(f"setup_timeout_seconds must be of type int, got {type(timeout)}")
    if timeout <= 0 and timeout != -1:
        raise ValueError(f"setup_timeout_seconds must be greater than zero or equals to -1, got: {timeout}")
    eager = value.get("eager_install", True)
    if not isinstance(eager, bool):
        raise TypeError(f"eager_install must be a boolean, got {type(eager)}")
    return {"setup_timeout_seconds": timeout, "eager_install": eager}


def _py_executable(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"`py_executable` must be a string, got {type(value)}.")
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise ValueError(f"`py_executable`: {error}, in {value!r}") from None
    if not words:
        raise ValueError("`py_executable` must not be empty")
    return value


def _setup_hook(value: Any) -> Any:
    """As given, or as it travels (`pickled_hook`)."""
    if isinstance(value, str) and "." not in value:
        raise ValueError(f"`worker_process_setup_hook` must name a function as module.function, got {value!r}")
    travels = isinstance(value, dict) and value.keys() == {"pickled"}
    if not callable(value) and not isinstance(value, str) and not travels:
        raise TypeError(f"`worker_process_setup_hook` must be a function or a string, got {type(value)}.")
    return value


def _preimport(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError(f"runtime_env['preimport'] must be of type List[str], got {value!r}")
    if wrong := [each for each in value if not all(part.isidentifier() for part in each.split("."))]:
        raise ValueError(f"runtime_env['preimport'] names modules, and {wrong[0]!r} can be none")
    return list(value)


#: What a file of conda's may say. ``yaml``: the text of such a file instead.
_CONDA = {"name", "channels", "dependencies", "prefix", "variables", "category", "platforms"}


def _conda(value: Any) -> str | dict[str, Any]:
    if isinstance(value, str):
        if not value or value.startswith("-"):
            raise ValueError(f"runtime_env['conda'] must name an environment of conda or a file, got {value!r}")
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"runtime_env['conda'] must be of type str or dict, got {type(value)}")
    if value.keys() != {"yaml"} and not value.keys() <= _CONDA:
        raise ValueError(f"runtime_env['conda'] has {sorted(value.keys() - _CONDA)}, which conda does not know")
    made: dict[str, Any] = json.loads(json.dumps(value))
    return made


def _image_uri(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"runtime_env['image_uri'] must be of type str, got {type(value)}")
    if not value or value.startswith("-") or any(character.isspace() for character in value):
        raise ValueError(f"runtime_env['image_uri'] must be the name of an image, got {value!r}")
    return value


def _container(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"runtime_env['container'] must be a dictionary, got {type(value)}")
    if "worker_path" in value:
        raise ValueError("runtime_env['container']['worker_path'] is not implemented by Shoal: workers find their own.")
    if not value.keys() <= {"image", "run_options"} or "image" not in value:
        raise ValueError(f"runtime_env['container'] must have 'image', and can have 'run_options', got {list(value)}")
    options = value.get("run_options") or []
    if not isinstance(options, list) or not all(isinstance(each, str) for each in options):
        raise TypeError(f"runtime_env['container']['run_options'] must be of type List[str], got {options!r}")
    return {"image": _image_uri(value["image"]), **({"run_options": options} if options else {})}


def _nsight(value: Any) -> str | dict[str, str]:
    if value == "default":
        return "default"
    if not isinstance(value, Mapping):
        raise ValueError(f"runtime_env['nsight'] must be 'default' or a dictionary of options of nsys, got {value!r}")
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str) or not name.strip("-") == name != "":
            raise ValueError(
                f"runtime_env['nsight'] has the option {name!r}: {text!r}: names without dashes and texts are options"
            )
    return dict(value)


def canonical(name: str) -> str:
    """Of a field that has two names."""
    return "nsight" if name == "_nsight" else name


def container(environment: Mapping[str, Any]) -> dict[str, Any] | None:
    """The field ``container``, also of an environment that has ``image_uri`` in its place; None = neither."""
    if "image_uri" in environment:
        return {"image": environment["image_uri"]}
    return environment.get("container")


#: What makes the value to keep of each field that there is. Raises: TypeError, ValueError.
FIELDS: dict[str, Callable[[Any], Any]] = {
    "env_vars": _env_vars,
    "working_dir": _working_dir,
    "py_modules": _py_modules,
    "excludes": _excludes,
    "config": _config,
    "preimport": _preimport,
    "py_executable": _py_executable,
    "worker_process_setup_hook": _setup_hook,
    "pip": _installer("pip", "pip_install_options"),
    "uv": _installer("uv", "uv_pip_install_options"),
    "conda": _conda,
    "image_uri": _image_uri,
    "container": _container,
    "nsight": _nsight,
}

_PROCESS = "start the node with what its workers need"
_PROFILER = "name the profiler's command in py_executable, with python at its end"
#: Fields of Ray's that are not there: what to do instead.
NOT_IMPLEMENTED: dict[str, str] = {
    "rocprof_sys": _PROFILER,
    "mpi": _PROCESS,
    "java_jars": "there are no Java workers",
}


def is_known(name: str) -> bool:
    """False = a field that only a plugin can bring."""
    return name in FIELDS or name in NOT_IMPLEMENTED


def validate_field(name: str, value: Any, plugins: Collection[str] = ()) -> Any:
    """The value to keep; ``plugins``: further fields, with JSON's values. Raises: TypeError, ValueError."""
    if name in NOT_IMPLEMENTED:
        raise ValueError(f"runtime_env[{name!r}] is not implemented by Shoal: {NOT_IMPLEMENTED[name]}.")
    if name in plugins and name not in FIELDS:
        return json.loads(json.dumps(value))
    if name not in FIELDS:
        known = ", ".join([*FIELDS, *plugins])
        raise ValueError(f"runtime_env has an unknown field {name!r}. There are: {known}.")
    return FIELDS[name](value)


def validate(given: Mapping[str, Any], plugins: Collection[str] = ()) -> dict[str, Any]:
    """What to keep of an environment as users write it; a field that is None was not given. ``plugins``: as for
    ``validate_field``.

    Raises: TypeError, ValueError, UnicodeEncodeError for text that cannot travel.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"runtime_env must be a dictionary, got {type(given)}")
    named = {canonical(name): value for name, value in given.items() if value is not None}
    made = {name: validate_field(name, value, plugins) for name, value in named.items()}
    if "nsight" in made and "preimport" in made:
        raise ValueError("'nsight' starts each worker by itself: nothing can be imported ahead, by 'preimport'.")
    if "py_executable" in made and (brought := [name for name in _PACKAGES if name in made]):
        raise ValueError(f"py_executable brings an interpreter of its own: it cannot be specified with {brought[0]!r}.")
    if len(images := [name for name in (*_IMAGES, *_PACKAGES, "nsight") if name in made]) > 1 and images[0] in _IMAGES:
        raise ValueError(f"{images[0]!r} cannot be specified with {images[1]!r}: install what you need in the image.")
    if len(both := [name for name in _PACKAGES if name in made]) > 1:
        raise ValueError(
            "The 'pip' field, 'uv' field, and 'conda' field of runtime_env cannot be specified at the same time.\n"
            + "\n".join(f"specified {name} field: {made[name]}" for name in both)
        )
    return made


def merged(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """What a task or an actor runs in whose options say ``child``, started by what runs in ``parent``: the child's
    fields in place of the parent's, except that environment variables are merged one by one, and that of the fields
    that say which interpreter runs with which packages the child's replaces whichever the parent has."""
    replaced = _INTERPRETERS if any(name in child for name in _INTERPRETERS) else ()
    both = {**{name: value for name, value in parent.items() if name not in replaced}, **child}
    if parent.get("env_vars") and child.get("env_vars"):
        both["env_vars"] = {**parent["env_vars"], **child["env_vars"]}
    return both


def encode(environment: Mapping[str, Any]) -> str:
    """The document. Raises: ValueError (too large), UnicodeEncodeError."""
    kept = {name: value for name, value in environment.items() if value not in ({}, [], None)}
    if not kept:
        return ""
    document = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if len(document.encode()) > MAX_BYTES:
        raise ValueError(f"A runtime_env must have at most {MAX_BYTES} bytes, and this one has {len(document)}.")
    return document


def decode(document: str) -> dict[str, Any]:
    """The environment by field."""
    environment: dict[str, Any] = json.loads(document) if document else {}
    return environment


@functools.lru_cache(maxsize=1024)
def key(document: str) -> str:
    """Of the processes that it means, in hexadecimal; "" for ""."""
    environment = decode(document)
    environment.pop("config", None)
    return hashlib.sha256(encode(environment).encode()).hexdigest()[:32] if environment else ""


def pickled_hook(pickled: bytes) -> dict[str, str]:
    """A function, as ``worker_process_setup_hook`` has it in a document."""
    return {"pickled": base64.b64encode(pickled).decode()}


def hook_bytes(hook: Any) -> bytes | None:
    """The pickled function; None = it is named."""
    return base64.b64decode(hook["pickled"]) if isinstance(hook, dict) else None


def is_remote(location: str) -> bool:
    """A URI, and no path of this machine."""
    return "://" in location


def wheel_requirement(uri: str, name: str) -> str:
    """A wheel that was uploaded, as ``pip`` and ``uv`` have it among their packages."""
    return f"{uri}#{name}"


def uploaded_wheel(requirement: str) -> tuple[str, str] | None:
    """The digest and the name of the file; None = it is another requirement."""
    uri, _, name = requirement.partition("#")
    digest = package_digest(uri)
    return (digest, name) if digest and _FILE_NAME.fullmatch(name) else None


def package_uri(digest: str, suffix: str) -> str:
    return f"gcs://_shoal_pkg_{digest}{suffix}"


def package_digest(uri: str) -> str | None:
    """None = it is not in the cluster's blobs."""
    match = _PACKAGE.fullmatch(uri)
    return match[1] if match else None


def package_place(digest: str) -> str:
    """Where the parts of a package are among the cluster's blobs."""
    return f"package/{digest}"


def part_key(place: str, part: int) -> str:
    """The blob of a part, from 0; -1 = of the size of all, which is stored last: then all of it is there."""
    return f"{place}/{'size' if part < 0 else part}"


def is_digest(text: str) -> bool:
    return bool(_DIGEST.fullmatch(text))


def expanded(variables: Mapping[str, str], surroundings: Mapping[str, str]) -> dict[str, str]:
    """Environment variables with what ``surroundings`` and those before them have in place of ``${NAME}`` and
    ``$NAME``; ``${NAME}`` becomes nothing where there is no such variable, ``$NAME`` stays."""
    known = dict(surroundings)
    made: dict[str, str] = {}
    for name, text in variables.items():
        made[name] = known[name] = _VARIABLE.sub(lambda match: _value(match, known), text)
    return made


def _value(match: re.Match[str], known: Mapping[str, str]) -> str:
    braced, bare = match.groups()
    return known.get(braced, "") if braced else known.get(bare, match.group())
