"""What type checkers know of methods that are decorated with ``@shoal.method``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Never, ParamSpec, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from shoal._api.actor_handles import ActorMethod
    from shoal._api.generators import ObjectRefGenerator
    from shoal._api.remote_call import RemoteCall, SeveralReturns

    P = ParamSpec("P")
    R = TypeVar("R")
    T = TypeVar("T")

    class MethodOfActor(Generic[P, R]):
        """What ``@shoal.method`` makes of a method: itself on an instance, and on a handle, which has the attributes of
        the class (``ActorProxy``), what can be called with ``.remote``."""

        @overload
        def __get__(self, instance: None, owner: Any) -> ActorMethod[P, R]: ...
        @overload
        def __get__(self, instance: object, owner: Any) -> Callable[P, R]: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...

    class GeneratorMethod(RemoteCall[P, ObjectRefGenerator[T]]):
        """On a handle: a method that yields."""

        @overload
        def options(self, *, num_returns: int, **options: Any) -> SeveralReturns: ...
        @overload
        def options(self, **options: Any) -> GeneratorMethod[P, T]: ...
        def options(self, **options: Any) -> Any: ...

    class GeneratorMethodOfActor(Generic[P, R, T]):
        """As ``MethodOfActor``, of a method that yields values of type ``T`` by returning ``R``."""

        @overload
        def __get__(self, instance: None, owner: Any) -> GeneratorMethod[P, T]: ...
        @overload
        def __get__(self, instance: object, owner: Any) -> Callable[P, R]: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...

    # Of what might return anything pyright would take the first that yields.
    Anything = Callable[Concatenate[Any, P], Never]
    Yielding = Callable[Concatenate[Any, P], Iterator[T]]
    YieldingAsync = Callable[Concatenate[Any, P], AsyncIterator[T]]

    class MethodDecorator(Protocol):
        """``@shoal.method(...)``."""

        @overload
        def __call__(self, method: Anything[P], /) -> MethodOfActor[P, Any]: ...  # type: ignore[overload-overlap]
        @overload
        def __call__(self, method: Yielding[P, T], /) -> GeneratorMethodOfActor[P, Iterator[T], T]: ...  # type: ignore[overload-overlap]
        @overload
        def __call__(self, method: YieldingAsync[P, T], /) -> GeneratorMethodOfActor[P, AsyncIterator[T], T]: ...  # type: ignore[overload-overlap]
        @overload
        def __call__(self, method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> MethodOfActor[P, R]: ...
        @overload
        def __call__(self, method: Callable[Concatenate[Any, P], R], /) -> MethodOfActor[P, R]: ...
