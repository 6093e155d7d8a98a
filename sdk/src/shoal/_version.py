"""The version of this distribution, as in its pyproject.toml, and that of the Ray it behaves like."""

__version__ = "0.1.0"

#: Libraries compare it.
RAY_VERSION = "2.59.0"
