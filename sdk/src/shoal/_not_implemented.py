"""What Ray's API can be asked for and Shoal does not do yet: refused where it is asked for, never taken and dropped."""

from __future__ import annotations

from typing import Any

#: What to do instead of ``runtime_env``, wherever one is given.
RUNTIME_ENV = (
    "runtime environments are not there yet. Install packages on the nodes, set environment variables there or in the "
    "function itself, and put modules next to the program or into JobConfig(code_search_path=...)"
)


def refusal(name: str, value: Any, harmless: tuple[Any, ...], instead: str) -> str | None:
    """What is wrong with ``value``; None when it is one of ``harmless``, which ask for nothing."""
    if any(type(value) is type(each) and value == each for each in harmless):
        return None
    return f"{name}={value!r} is not implemented by Shoal: {instead}."


def refuse(name: str, value: Any, harmless: tuple[Any, ...], instead: str) -> None:
    """Raises: ValueError unless ``value`` is one of ``harmless``."""
    if problem := refusal(name, value, harmless, instead):
        raise ValueError(problem)
