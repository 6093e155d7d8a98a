"""Marks on what a library offers: ``@PublicAPI``, ``@DeveloperAPI``, ``@Deprecated``, as ``ray.util.annotations``.

They add a line to the docstring, and attributes by which tools find what is marked.
"""

from __future__ import annotations

import functools
import inspect
import textwrap
import warnings
from collections.abc import Callable
from enum import Enum
from typing import Any

__all__ = ["AnnotationType", "Deprecated", "DeveloperAPI", "PublicAPI", "RayDeprecationWarning"]

_STABILITIES = ("stable", "beta", "alpha")


class AnnotationType(Enum):
    PUBLIC_API = "PublicAPI"
    DEVELOPER_API = "DeveloperAPI"
    DEPRECATED = "Deprecated"
    UNKNOWN = "Unknown"


class RayDeprecationWarning(DeprecationWarning):
    """What ``@Deprecated(warning=True)`` warns with."""


def PublicAPI(obj: Any = None, /, *, stability: str = "stable", api_group: str = "Others") -> Any:
    """``stability``: "stable", "beta" or "alpha". ``api_group``: for documentation.

    Raises: AssertionError (another stability).
    """
    assert stability in _STABILITIES, f"stability is one of {_STABILITIES}, not {stability!r}"
    unstable = f"**PublicAPI ({stability}):** This API is in {stability} and may change before it is stable."
    note = "" if stability == "stable" else unstable
    return _marker(obj, AnnotationType.PUBLIC_API, note, api_group)


def DeveloperAPI(obj: Any = None, /) -> Any:
    """For those who build on it, and bear that it changes between minor releases."""
    note = "**DeveloperAPI:** This API may change between minor releases."
    return _marker(obj, AnnotationType.DEVELOPER_API, note)


def Deprecated(obj: Any = None, /, *, message: str = "", warning: bool = False) -> Any:
    """``message``: what to use instead. ``warning``: say it too, in a RayDeprecationWarning, whenever it is called."""
    text = "This API is deprecated and may be removed in a later release."
    if message:
        text = f"{text}\n{message}"
    note = f".. warning::\n\n    **DEPRECATED**: {text.replace(chr(10), chr(10) + '    ')}"

    def warn_first(callable_: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(callable_)
        def warned(*args: Any, **kwargs: Any) -> Any:
            warnings.warn(text, RayDeprecationWarning, stacklevel=2)
            return callable_(*args, **kwargs)

        return warned

    def mark(target: Any) -> Any:
        target = _marker(target, AnnotationType.DEPRECATED, note)
        if not warning:
            return target
        if inspect.isclass(target):
            target.__init__ = warn_first(target.__init__)  # type: ignore[method-assign]
            return target
        return warn_first(target)

    return mark if obj is None else mark(obj)


def _marker(obj: Any, kind: AnnotationType, note: str, api_group: str = "Others") -> Any:
    def mark(target: Any) -> Any:
        if note:
            doc = target.__doc__ or ""
            indented = [line for line in doc.splitlines()[1:] if line.strip()]
            indent = indented[0][: len(indented[0]) - len(indented[0].lstrip())] if indented else ""
            target.__doc__ = f"{doc.rstrip()}\n\n{textwrap.indent(note, indent)}\n{indent}"
        if hasattr(target, "__name__"):  # a property has none, and takes no attributes
            target._annotated = target.__name__
            target._annotated_type = kind
            target._annotated_api_group = api_group
        return target

    return mark if obj is None else mark(obj)
