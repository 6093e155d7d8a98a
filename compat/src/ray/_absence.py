"""What is raised for the names of Ray that Shoal has not."""

from __future__ import annotations

import sys

PAGE = "This `ray` is Shoal; docs/coming-from-ray.md lists what it lacks and what to use instead."


def absent(module: str, lacks: str) -> Exception:
    """For the ``__getattr__`` of ``module`` to raise."""
    if sys._getframe(2).f_code.co_name == "_handle_fromlist":
        # ``from module import ...``, which would make an error of its own of an AttributeError.
        return ImportError(f"{lacks}. {PAGE}", name=module)
    return AttributeError(f"{lacks}. {PAGE}")


def absent_module(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}. {PAGE}", name=name)
