"""Progress bars of tasks, actors and the driver, as ``ray.experimental.tqdm_ray``; the driver draws them all.

```python
@shoal.remote
def work(items):
    for item in tqdm_ray.tqdm(items, desc="work"):
        ...
```

It needs the package ``tqdm`` where the driver is. With ``init(log_to_driver=False)`` only the driver's own are shown.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from shoal._session.progress import RAY_TQDM_MAGIC, ProgressBarState, bars, line_of, safe_print
from shoal._values.numbers import plain
from shoal.runtime_context import WORKER_MODE, ThisProcess
from shoal.util.debug import log_once as log_once
from shoal.util.node_address import get_node_ip_address

try:
    import tqdm.auto as real_tqdm
except ImportError:
    real_tqdm = None

__all__ = ["RAY_TQDM_MAGIC", "ProgressBarState", "real_tqdm", "safe_print", "tqdm"]


class tqdm:
    """One bar. ``flush_interval_s``: how often it tells the driver how far it has come; the end it tells at once."""

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        desc: str | None = None,
        total: float | None = None,
        unit: str | None = None,
        position: int | None = None,
        flush_interval_s: float = 1.0,
    ) -> None:
        """``total``: by default the length of ``iterable``, if it has one. ``position``: among the bars of this
        process."""
        if total is None and iterable is not None:
            try:
                total = len(iterable)  # type: ignore[arg-type]
            except TypeError:
                total = None
        self._iterable = iterable
        self._flush_interval_s = flush_interval_s
        self._told_at = float("-inf")
        self._state: ProgressBarState = {
            "__magic_token__": RAY_TQDM_MAGIC,
            "x": 0,
            "total": plain(total),
            "desc": desc or "",
            "unit": unit or "it",
            "pos": position or 0,
            "pid": os.getpid(),
            "ip": get_node_ip_address(),
            "uuid": uuid.uuid4().hex,
            "closed": False,
        }
        self._tell()

    def __iter__(self) -> Iterator[Any]:
        """Raises: ValueError when it was made without an iterable."""
        if self._iterable is None:
            raise ValueError("this bar was made without an iterable: give it one, or call update()")
        try:
            for each in self._iterable:
                yield each
                self.update()
        finally:
            self.close()

    def __enter__(self) -> tqdm:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def total(self) -> float | None:
        return self._state["total"]

    @total.setter
    def total(self, total: float | None) -> None:
        self._state["total"] = plain(total)

    @property
    def n(self) -> float:
        return self._state["x"]

    def set_description(self, desc: str) -> None:
        self._state["desc"] = desc
        self._tell()

    def update(self, n: float = 1) -> None:
        """So many more are done."""
        self._state["x"] += plain(n)
        self._tell()

    def refresh(self) -> None:
        """Told, if it has not been for ``flush_interval_s``."""
        self._tell()

    def close(self) -> None:
        """It stays as it is now."""
        if not self._state["closed"]:
            self._state["closed"] = True
            self._tell(at_once=True)

    def _tell(self, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._told_at < self._flush_interval_s:
            return
        self._told_at = now
        state = self._state.copy()
        if ThisProcess().mode == WORKER_MODE:
            print(line_of(state), end="")
        else:
            bars.update(state, own=True)
