"""What the typed faces need of the client that they belong to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Calling(Protocol):
    """Implemented by ``client.GcsClient``, which tells what its methods raise."""

    address: str

    def call(self, service: str, method: str, request: Any, timeout_s: float | None = None) -> Any: ...

    def call_async(
        self,
        service: str,
        method: str,
        request: Any,
        done: Callable[[Any, Exception | None], None],
        timeout_s: float | None = None,
    ) -> None: ...

    def stub(self, service: str) -> Any: ...
