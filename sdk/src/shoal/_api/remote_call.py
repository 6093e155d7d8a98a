"""What type checkers know of ``.remote(...)``: it takes what the function takes, or refs of that, and returns a ref.

Which parameter a ref stands for is told by its place: a checker knows the parameters one by one only as long as they
are positional. So refs go to any of the first six parameters; by name, either all arguments are refs or none is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from shoal._core.object_ref import ObjectRef

P = ParamSpec("P")
R = TypeVar("R")

if TYPE_CHECKING:
    Q = ParamSpec("Q")
    A = TypeVar("A")
    B = TypeVar("B")
    C = TypeVar("C")
    D = TypeVar("D")
    E = TypeVar("E")
    F = TypeVar("F")


class RemoteCall(Generic[P, R]):
    """``P``: the parameters, ``R``: what is returned. ``remote`` itself is made by the classes that inherit from it."""

    __slots__ = ()

    if TYPE_CHECKING:
        # Each one takes a ref as its last positional argument, and exactly what the function says behind it.
        @overload
        def remote(self, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]: ...
        @overload
        def remote(
            self: RemoteCall[Concatenate[A, Q], R], a: ObjectRef[A], /, *args: Q.args, **kwargs: Q.kwargs
        ) -> ObjectRef[R]: ...
        @overload
        def remote(
            self: RemoteCall[Concatenate[A, B, Q], R],
            a: A | ObjectRef[A],
            b: ObjectRef[B],
            /,
            *args: Q.args,
            **kwargs: Q.kwargs,
        ) -> ObjectRef[R]: ...
        @overload
        def remote(
            self: RemoteCall[Concatenate[A, B, C, Q], R],
            a: A | ObjectRef[A],
            b: B | ObjectRef[B],
            c: ObjectRef[C],
            /,
            *args: Q.args,
            **kwargs: Q.kwargs,
        ) -> ObjectRef[R]: ...
        @overload
        def remote(
            self: RemoteCall[Concatenate[A, B, C, D, Q], R],
            a: A | ObjectRef[A],
            b: B | ObjectRef[B],
            c: C | ObjectRef[C],
            d: ObjectRef[D],
            /,
            *args: Q.args,
            **kwargs: Q.kwargs,
        ) -> ObjectRef[R]: ...
        @overload
        def remote(
            self: RemoteCall[Concatenate[A, B, C, D, E, Q], R],
            a: A | ObjectRef[A],
            b: B | ObjectRef[B],
            c: C | ObjectRef[C],
            d: D | ObjectRef[D],
            e: ObjectRef[E],
            /,
            *args: Q.args,
            **kwargs: Q.kwargs,
        ) -> ObjectRef[R]: ...
        @overload
        def remote(
            self: RemoteCall[Concatenate[A, B, C, D, E, F, Q], R],
            a: A | ObjectRef[A],
            b: B | ObjectRef[B],
            c: C | ObjectRef[C],
            d: D | ObjectRef[D],
            e: E | ObjectRef[E],
            f: ObjectRef[F],
            /,
            *args: Q.args,
            **kwargs: Q.kwargs,
        ) -> ObjectRef[R]: ...
        @overload
        def remote(self, *args: ObjectRef[Any], **kwargs: ObjectRef[Any]) -> ObjectRef[R]: ...
        def remote(self, *args: Any, **kwargs: Any) -> Any: ...  # type: ignore[misc]


if TYPE_CHECKING:

    class SeveralReturns(Protocol):
        """With ``num_returns``: ``remote`` returns a list of refs, None for 0."""

        def remote(self, *args: Any, **kwargs: Any) -> Any: ...
