"""What MkDocs runs while it builds the site (mkdocs.yml)."""

from __future__ import annotations

import logging
import re

#: A warning of MkDocs, which ends the build.
logger = logging.getLogger("mkdocs.hooks.shoal")

_OUTSIDE_OF_DOCS = re.compile(r"\[([^]]*)\]\(\.\./(?!\.)([^)#]*)[^)]*\)")
#: What a page loads by itself; links to follow may lead anywhere.
_LOADED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["']?((?:https?:)?//[^"' >]*)""")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links to other files of the repository, which are not part of the site, become their paths."""
    return _OUTSIDE_OF_DOCS.sub(r"\1 (`\2`)", markdown)


def on_post_page(output: str, *, page: object, **_: object) -> str:
    for address in _LOADED.findall(output):
        logger.warning("%s loads %s: the site has to do without a network", page, address)
    return output
