"""What the parts of a worker ask of those that are built on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from shoal._wire.peer_frames import TaskPush


class Actor(Protocol):
    """The actor of this worker (see ``actor_host.ActorHost``)."""

    class_name: str
    is_async: bool
    takes_calls: bool
    durable: bool

    def construct(self, cls: type, args: Any, kwargs: dict[str, Any]) -> None: ...

    def restore(self) -> None: ...

    def describe(self) -> str: ...

    def method(self, name: str) -> Callable[..., Any]: ...

    def stop_call(self, task_id: bytes) -> bool: ...

    def waiting_call(self, task_id: bytes) -> tuple[TaskPush, list[bytes]] | None: ...

    def close(self) -> None: ...

    def flush(self) -> None: ...

    def wait_until_answered(self) -> None: ...

    def shut_down(self) -> None: ...


class MainThread(Protocol):
    """The worker's main loop (see ``executor.Executor``)."""

    @property
    def actor(self) -> Actor | None: ...

    def command(self, what: Callable[[], None]) -> None: ...

    def hand_back(self, leaving: bool = False) -> None: ...

    def flush_replies(self) -> None: ...

    def run_queue(self) -> None: ...

    def keep_state(self) -> None: ...
