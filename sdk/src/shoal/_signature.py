"""Signatures of remote functions and methods: wrong arguments fail at the call, in the caller's process."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec


class Signature(msgspec.Struct, array_like=True, frozen=True):
    """Parameters without their defaults' values and annotations, so that handles carry it cheaply."""

    #: Positional parameters in order: (name, has a default, may be given by keyword).
    positional: list[tuple[str, bool, bool]]
    #: Keyword-only parameters: (name, has a default).
    keyword_only: list[tuple[str, bool]]
    var_positional: bool
    var_keyword: bool
    #: Positional parameters without a default.
    required: int

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raises: TypeError, with the text of ``inspect.Signature.bind``."""
        if not kwargs and not self.keyword_only:
            count = len(args)
            if self.required <= count and (self.var_positional or count <= len(self.positional)):
                return
        self._check_slowly(args, kwargs)

    def _check_slowly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if len(args) > len(self.positional) and not self.var_positional:
            raise TypeError("too many positional arguments")
        left = dict(kwargs)
        for index, (name, has_default, by_keyword) in enumerate(self.positional):
            if index < len(args):
                if by_keyword and name in left:
                    raise TypeError(f"multiple values for argument {name!r}")
            elif by_keyword and name in left:
                del left[name]
            elif not has_default:
                raise TypeError(f"missing a required argument: {name!r}")
        for name, has_default in self.keyword_only:
            if name in left:
                del left[name]
            elif not has_default:
                raise TypeError(f"missing a required argument: {name!r}")
        if left and not self.var_keyword:
            raise TypeError(f"got an unexpected keyword argument {next(iter(left))!r}")


#: Takes anything: for callables without an introspectable signature.
ANY = Signature([], [], True, True, 0)


def signature_of(function: Any, *, skip_first: bool = False) -> Signature:
    """``skip_first`` leaves out ``self``."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return ANY
    if skip_first:
        parameters = parameters[1:]
    kinds = inspect.Parameter
    positional = [
        (p.name, p.default is not kinds.empty, p.kind is kinds.POSITIONAL_OR_KEYWORD)
        for p in parameters
        if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    ]
    return Signature(
        positional=positional,
        keyword_only=[(p.name, p.default is not kinds.empty) for p in parameters if p.kind is kinds.KEYWORD_ONLY],
        var_positional=any(p.kind is kinds.VAR_POSITIONAL for p in parameters),
        var_keyword=any(p.kind is kinds.VAR_KEYWORD for p in parameters),
        required=sum(1 for _, has_default, _ in positional if not has_default),
    )
