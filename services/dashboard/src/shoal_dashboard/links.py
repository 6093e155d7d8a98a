"""Addresses within the dashboard: always relative, so that it works behind any path of any proxy. Pure."""

from __future__ import annotations

import re

_INSIDE = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")


def root_of(path: str) -> str:
    """From a page at ``path`` to the dashboard's root, as a relative address that ends with a slash."""
    return "../" * (path.count("/") - 1) or "./"


def is_inside(address: str) -> bool:
    """True = a path of ours, with or without a query; False = it may lead elsewhere."""
    return _INSIDE.fullmatch(address) is not None
