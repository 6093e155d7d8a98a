"""What type checkers know of methods that are decorated with ``@shoal.method``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from shoal._api.actor_handles import ActorMethod

    P = ParamSpec("P")
    R = TypeVar("R")

    class MethodOfActor(Generic[P, R]):
        """What ``@shoal.method`` makes of a method: itself on an instance, and on a handle, which has the attributes of
        the class (``ActorProxy``), what can be called with ``.remote``."""

        @overload
        def __get__(self, instance: None, owner: Any) -> ActorMethod[P, R]: ...
        @overload
        def __get__(self, instance: object, owner: Any) -> Callable[P, R]: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...

    class MethodDecorator(Protocol):
        """``@shoal.method(...)``."""

        @overload
        def __call__(self, method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> MethodOfActor[P, R]: ...
        @overload
        def __call__(self, method: Callable[Concatenate[Any, P], R], /) -> MethodOfActor[P, R]: ...
