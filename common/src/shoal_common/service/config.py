"""Flags and environment → one frozen dataclass per service, read once in its ``__main__``.

A field ``silent_after_s`` of the scheduler's config is the flag ``--silent-after-s`` and the variable
``SHOAL_SCHEDULER_SILENT_AFTER_S``; the flag wins over the variable, the variable over the default.

Values are text: numbers, ``true``/``false``, paths as they are, ``tuple[str, ...]`` separated by commas, anything else
(a ``dict``) as JSON. The token never comes from a flag, whose text every user of the machine can read.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import types
import typing
import warnings
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from shoal_common.auth import TOKEN_PATH_VARIABLE, load_token
from shoal_common.tls import Tls, TlsError

LOG_LEVELS = ("debug", "info", "warning", "error")

#: Where the value of a setting comes from that nobody has set.
DEFAULT = "default"

_REQUIRED: Any = dataclasses.MISSING
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class ConfigError(Exception):
    """A setting is missing or has a value that cannot be used; the message names it and the accepted range."""


@contextlib.contextmanager
def from_extra(extra: str) -> Iterator[None]:
    """Around the import of a client library that only some settings need. Raises: ConfigError when it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed, which etcd, NATS and S3 need: pip install 'shoal-common[{extra}]'"
        ) from error


def setting(
    default: Any = _REQUIRED,
    *,
    doc: str,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """A documented field of a config class; without ``default`` it must be given."""
    metadata = {"doc": doc, "unit": unit, "minimum": minimum, "maximum": maximum, "choices": tuple(choices)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """What every service is told. Subclasses set ``SERVICE`` and add their own fields."""

    SERVICE: ClassVar[str]

    #: The cluster token; see `shoal_common.auth.load_token`.
    token: str = dataclasses.field(repr=False)
    #: Mutual TLS with the cluster's other processes; None = without. See `Tls.from_environ`.
    tls: Tls | None = None
    #: By setting: the flag or variable that has set it, or ``DEFAULT``; empty where it was not loaded from these.
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    host: str = setting("127.0.0.1", doc="address to listen on; only the loopback unless told otherwise")
    port: int = setting(0, doc="port to listen on; 0 takes a free one", minimum=0, maximum=65535)
    log_level: str = setting("info", doc="least level that is logged", choices=LOG_LEVELS)


C = TypeVar("C", bound=ServiceConfig)


def load(config: type[C], argv: Sequence[str], environ: MutableMapping[str, str]) -> C:
    """The config from flags, environment and defaults; ``--help`` prints every setting and exits.

    Raises: ConfigError for a missing or unusable value, TokenError when there is no token; exits for unknown flags,
    as argparse does. Warns for ``SHOAL_<SERVICE>_*`` variables that no field has.
    """
    fields = {field.name: field for field in dataclasses.fields(config) if "doc" in field.metadata}
    hints = typing.get_type_hints(config)
    prefix = f"SHOAL_{config.SERVICE.upper()}_"
    flags = vars(_parser(config, fields.values(), prefix).parse_args(argv))
    _warn_unknown(environ, prefix, {prefix + name.upper() for name in fields})
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, field in fields.items():
        variable, flag = prefix + name.upper(), "--" + name.replace("_", "-")
        if flags[name] is not None:
            values[name] = _parse(flag, flags[name], hints[name], field.metadata)
            sources[name] = flag
        elif variable in environ:
            values[name] = _parse(variable, environ[variable], hints[name], field.metadata)
            sources[name] = variable
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{flag} (or {variable}) is missing: {field.metadata['doc']}")
        else:
            sources[name] = DEFAULT
    try:
        tls = Tls.from_environ(environ)
    except TlsError as error:
        raise ConfigError(str(error)) from error
    return config(token=load_token(environ), tls=tls, sources=sources, **values)


def _parser(
    config: type[ServiceConfig], fields: typing.Iterable[dataclasses.Field[Any]], prefix: str
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m shoal_{config.SERVICE}",
        description=(config.__doc__ or "").strip(),
        epilog=f"The cluster token comes from the file named by {TOKEN_PATH_VARIABLE}, or from ~/.shoal/auth_token.",
        allow_abbrev=False,
    )
    for field in fields:
        about = field.metadata
        unit = f", in {about['unit']}" if about["unit"] else ""
        default = "required" if field.default is dataclasses.MISSING else f"default {field.default}"
        if field.default_factory is not dataclasses.MISSING:
            default = f"default {field.default_factory()}"
        text = f"{about['doc']}{unit} [{prefix}{field.name.upper()}; {default}]"
        parser.add_argument("--" + field.name.replace("_", "-"), metavar="VALUE", help=text.replace("%", "%%"))
    return parser


def _warn_unknown(environ: MutableMapping[str, str], prefix: str, known: set[str]) -> None:
    for variable in sorted(environ):
        if variable.startswith(prefix) and variable not in known:
            close = difflib.get_close_matches(variable, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            warnings.warn(f"the variable {variable} is not a setting and is ignored{hint}", stacklevel=3)


def _parse(name: str, text: str, hint: Any, about: typing.Mapping[str, Any]) -> Any:
    """Raises: ConfigError naming the setting, the value and what is accepted."""
    accepted = _accepted(hint, about)
    try:
        value = _convert(text, hint)
    except ValueError as error:
        raise ConfigError(f"{name}={text!r} is not accepted: expected {accepted}") from error
    too_small = about["minimum"] is not None and value is not None and value < about["minimum"]
    too_large = about["maximum"] is not None and value is not None and value > about["maximum"]
    if too_small or too_large or (about["choices"] and value not in about["choices"]):
        raise ConfigError(f"{name}={text!r} is not accepted: expected {accepted}")
    return value


def _convert(text: str, hint: Any) -> Any:
    hint, optional = _without_none(hint)
    if optional and text == "":
        return None
    if hint is str:
        return text
    if hint is Path:
        return Path(text).expanduser()
    if hint is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError("not a boolean")
        return _BOOLEANS[text.lower()]
    if hint in (int, float):
        value = hint(text)
        if value != value:
            raise ValueError("not a number")
        return value
    if hint == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return msgspec.json.decode(text, type=hint)


def _without_none(hint: Any) -> tuple[Any, bool]:
    """``int | None`` → (int, True); other hints unchanged."""
    if isinstance(hint, types.UnionType):
        kept = [part for part in typing.get_args(hint) if part is not type(None)]
        return kept[0], True
    return hint, False


def _accepted(hint: Any, about: typing.Mapping[str, Any]) -> str:
    if about["choices"]:
        return "one of " + ", ".join(about["choices"])
    hint, _optional = _without_none(hint)
    names = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path", str: "text"}
    kind = names.get(hint, "JSON for " + getattr(hint, "__name__", str(hint)))
    low, high = about["minimum"], about["maximum"]
    span = ""
    if low is not None and high is not None:
        span = f" from {low} to {high}"
    elif low is not None:
        span = f" of at least {low}"
    elif high is not None:
        span = f" of at most {high}"
    unit = f", in {about['unit']}" if about["unit"] else ""
    return f"{kind}{span}{unit}"
