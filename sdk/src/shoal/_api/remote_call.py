"""What type checkers know of ``.remote(...)``: it takes what the function takes, or refs of that, and returns a ref, or
of a generator function the generator of refs.

Which parameter a ref stands for is told by its place: a checker knows the parameters one by one only as long as they
are positional. So refs go to any of the first six parameters; by name, either all arguments are refs or none is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from shoal._core.object_ref import ObjectRef

P = ParamSpec("P")
V = TypeVar("V")

if TYPE_CHECKING:
    from shoal._api.generators import ObjectRefGenerator
    from shoal._api.graph import FunctionNode

    Q = ParamSpec("Q")
    A = TypeVar("A")
    B = TypeVar("B")
    C = TypeVar("C")
    D = TypeVar("D")
    E = TypeVar("E")
    F = TypeVar("F")


class RemoteCall(Generic[P, V]):
    """``P``: the parameters, ``V``: what ``remote`` returns; it is made by the classes that inherit from this."""

    __slots__ = ()

    if TYPE_CHECKING:
        # Each one takes a ref as its last positional argument, and exactly what the function says behind it.
        @overload
        def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> V: ...
        @overload
        def remote(
            self: RemoteCall[Concatenate[A, Q], V], a: ObjectRef[A], /, *args: Q.args, **kwargs: Q.kwargs
        ) -> V: ...
        @overload
        def remote(
            self: RemoteCall[Concatenate[A, B, Q], V],
            a: A | ObjectRef[A],
            b: ObjectRef[B],
            /,
            *args: Q.args,
            **kwargs: Q.kwargs,
        ) -> V: ...
        @overload
        def remote(
            self: RemoteCall[Concatenate[A, B, C, Q], V],
            a: A | ObjectRef[A],
            b: B | ObjectRef[B],
            c: ObjectRef[C],
            /,
            *args: Q.args,
            **kwargs: Q.kwargs,
        ) -> V: ...
        @overload
        def remote(
            self: RemoteCall[Concatenate[A, B, C, D, Q], V],
            a: A | ObjectRef[A],
            b: B | ObjectRef[B],
            c: C | ObjectRef[C],
            d: ObjectRef[D],
            /,
            *args: Q.args,
            **kwargs: Q.kwargs,
        ) -> V: ...
        @overload
        def remote(
            self: RemoteCall[Concatenate[A, B, C, D, E, Q], V],
            a: A | ObjectRef[A],
            b: B | ObjectRef[B],
            c: C | ObjectRef[C],
            d: D | ObjectRef[D],
            e: ObjectRef[E],
            /,
            *args: Q.args,
            **kwargs: Q.kwargs,
        ) -> V: ...
        @overload
        def remote(
            self: RemoteCall[Concatenate[A, B, C, D, E, F, Q], V],
            a: A | ObjectRef[A],
            b: B | ObjectRef[B],
            c: C | ObjectRef[C],
            d: D | ObjectRef[D],
            e: E | ObjectRef[E],
            f: ObjectRef[F],
            /,
            *args: Q.args,
            **kwargs: Q.kwargs,
        ) -> V: ...
        @overload
        def remote(self, /, *args: ObjectRef[Any], **kwargs: ObjectRef[Any]) -> V: ...
        def remote(self, /, *args: Any, **kwargs: Any) -> Any: ...


if TYPE_CHECKING:
    T = TypeVar("T")

    class StreamingFunction(RemoteCall[P, ObjectRefGenerator[T]]):
        """A generator function, of which checkers know what it yields."""

        @overload
        def options(self, *, num_returns: int, **options: Any) -> SeveralReturns: ...
        @overload
        def options(self, **options: Any) -> StreamingFunction[P, T]: ...
        def options(self, **options: Any) -> Any: ...

        def bind(self, /, *args: Any, **kwargs: Any) -> FunctionNode: ...

    class SeveralReturns(Protocol):
        """With ``num_returns``: ``remote`` returns a list of refs, None for 0."""

        def remote(self, /, *args: Any, **kwargs: Any) -> Any: ...

    class UnknownMethod(Protocol):
        """Of a handle of which nothing is known. What it returns is no ref for a checker, so that a handle which may be
        such a one (``ActorProxy``) has generators where the class has them."""

        def remote(self, /, *args: Any, **kwargs: Any) -> Any: ...
        def options(self, **options: Any) -> UnknownMethod: ...
        def bind(self, /, *args: Any, **kwargs: Any) -> Any: ...
