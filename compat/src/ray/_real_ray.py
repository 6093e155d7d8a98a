"""A real Ray in the same environment: half of the imports would be its, half Shoal's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def refuse_to_stand_over_it(path: Iterable[str]) -> None:
    """``path``: directories with distributions. Read without ``importlib.metadata``, whose import takes each worker as
    long as that of Shoal itself.

    Raises: ImportError when one of them has a distribution ``ray`` which is not the stub of this one.
    """
    for directory in path:
        for metadata in Path(directory).glob("ray-*.dist-info/METADATA"):
            if "Requires-Dist: shoal-ray" not in metadata.read_text():
                raise ImportError(
                    f"a real Ray is installed here ({metadata.parent}), and this `ray` is Shoal: one environment can "
                    "have only one of them. For Shoal: pip uninstall ray shoal-ray, then install shoal-ray again. "
                    "For Ray: pip uninstall shoal-ray, then pip install --force-reinstall ray",
                    name="ray",
                )
