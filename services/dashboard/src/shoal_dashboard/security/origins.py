"""Whether a browser asks because one of our own pages told it to. Pure.

Source: Fetch Metadata Request Headers (W3C); the ``Origin`` header of RFC 6454 for browsers without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

#: They change nothing.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def from_own_page(headers: Mapping[str, str]) -> bool:
    """``headers`` by names in lower case. A browser that says neither is not believed."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        # "none": the user's own doing, as from the address bar.
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return False
    # A proxy may ask us by another name. No other site can make a browser send the header that then has ours.
    ours = headers.get("x-forwarded-host") or headers.get("host", "")
    return urlsplit(origin).netloc.lower() == ours.lower()
