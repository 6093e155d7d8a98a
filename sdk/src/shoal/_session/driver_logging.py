"""The logger ``shoal`` in a driver: the program's own, unless it has none."""

from __future__ import annotations

import logging

logger = logging.getLogger("shoal")

_FORMAT = "%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s"
#: Ours, once there is one.
_handler: logging.Handler | None = None


def configure_logging(level: int | str, text_format: str | None) -> None:
    """Show messages from ``level`` on: on standard error in ``text_format``, or as the program has set up logging."""
    global _handler
    logger.setLevel(level.upper() if isinstance(level, str) else level)
    if _handler is not None:
        logger.removeHandler(_handler)
        _handler = None
    # Not twice, where the root logger has a handler too.
    logger.propagate = not text_format
    if text_format or not logger.hasHandlers():
        _handler = logging.StreamHandler()
        _handler.setFormatter(logging.Formatter(text_format or _FORMAT))
        logger.addHandler(_handler)
