"""The panel that a notebook shows of a session: what the cluster has and what of it is used, until the session ends."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from shoal import _html
from shoal._net.gcs.client import GcsClient
from shoal._net.gcs.errors import ClientClosed
from shoal._session.usage import usage
from shoal.exceptions import ShoalError
from shoal_common.states import NodeState

#: It is looked at the cluster so often, in seconds.
EVERY_S = 2.0
#: The end of the session waits so long for what is just being shown, in seconds.
_END_S = 5.0

Rows = Sequence[tuple[str, object]]


def display_of_notebook() -> Callable[..., Any] | None:
    """IPython's ``display``, where it can be updated; None = this is a prompt or a program."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return None
    display: Callable[..., Any] = importlib.import_module("IPython.display").display
    return display


class Panel:
    """Of one session, in the place where it was shown last. Its thread is ended by ``stop`` and ``join``."""

    def __init__(self, gcs: GcsClient, title: str, about: Rows) -> None:
        """``about``: rows that stay as they are."""
        self._gcs = gcs
        self._title = title
        self._about = about
        self._handle: Any = None
        self._ending = threading.Event()
        self._says_end = False
        self._thread = threading.Thread(target=self._follow, name="shoal-panel", daemon=True)

    def show(self, display: Callable[..., Any]) -> None:
        """Here from now on; what was shown before stays as it is. ``display``: IPython's."""
        self._handle = display(self._picture(()), raw=True, display_id=True)
        if self._thread.ident is None:
            self._thread.start()

    def stop(self, *, say: bool) -> None:
        """Does not wait. ``say``: the panel shows that the session has ended."""
        self._says_end = say
        self._ending.set()

    def join(self) -> None:
        """After ``stop`` and the end of the GCS's client, which ends its questions."""
        if self._thread.ident is not None:
            self._thread.join(_END_S)

    def _follow(self) -> None:
        shown: tuple[Any, dict[str, str]] | None = None
        while not self._ending.is_set():
            handle, picture = self._handle, self._picture(self._now())
            if shown != (handle, picture) and not self._ending.is_set():
                handle.update(picture, raw=True)
                shown = handle, picture
            self._ending.wait(EVERY_S)
        if self._says_end:
            self._handle.update(self._picture([("session", "has ended")]), raw=True)

    def _now(self) -> Rows:
        try:
            nodes = self._gcs.nodes.list()
        except ClientClosed:
            return ()
        except ShoalError as error:
            return [("cluster", f"does not answer: {error}")]
        living = [node for node in nodes if node.state is not NodeState.DEAD]
        return [("nodes alive", len(living)), *((f"{name} used", text) for name, text in usage(living))]

    def _picture(self, now: Rows) -> dict[str, str]:
        return {"text/plain": self._title, "text/html": _html.table(self._title, [*self._about, *now])}
