"""What Ray's API can be asked for and Shoal does not do yet: refused where it is asked for, never taken and dropped."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def refusal(name: str, value: Any, harmless: tuple[Any, ...], instead: str) -> str | None:
    """What is wrong with ``value``; None when it is one of ``harmless``, which ask for nothing."""
    if any(type(value) is type(each) and value == each for each in harmless):
        return None
    return f"{name}={value!r} is not implemented by Shoal: {instead}."


def refuse(name: str, value: Any, harmless: tuple[Any, ...], instead: str) -> None:
    """Raises: ValueError unless ``value`` is one of ``harmless``."""
    if problem := refusal(name, value, harmless, instead):
        raise ValueError(problem)


def missing(module: str, name: str, instead: Mapping[str, str]) -> Exception:
    """What a module's ``__getattr__`` raises: names of Ray that are missing say what to do ``instead``. ``hasattr``
    finds none of them."""
    hint = f": it is not implemented by Shoal. Instead: {instead[name]}" if name in instead else ""
    if hint and sys._getframe(2).f_code.co_name == "_handle_fromlist":
        # ``from module import ...``, which would make an error of its own of an AttributeError.
        return ImportError(f"cannot import name '{name}' from '{module}'{hint}", name=module)
    return AttributeError(f"module '{module}' has no attribute '{name}'{hint}")
