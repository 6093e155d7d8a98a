"""Signatures of remote functions and methods: wrong arguments fail at the call, in the caller's process."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec


class _Default:
    """Of a parameter that has one, when it is not known which."""

    def __repr__(self) -> str:
        return "..."


_DEFAULT = _Default()


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
        if not self._fits(args, kwargs):
            self.inspected().bind(*args, **kwargs)  # raises: the text is that of the running Python

    def _fits(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if len(args) > len(self.positional) and not self.var_positional:
            return False
        matched = 0
        for index, (name, has_default, by_keyword) in enumerate(self.positional):
            given = by_keyword and name in kwargs
            if index < len(args):
                if given:
                    return False
            elif not (given or has_default):
                return False
            matched += given
        for name, has_default in self.keyword_only:
            if name not in kwargs and not has_default:
                return False
            matched += name in kwargs
        return self.var_keyword or matched == len(kwargs)

    def inspected(self) -> inspect.Signature:
        """For humans and their tools; ``...`` stands for each default."""
        kinds = inspect.Parameter
        parameters = [
            kinds(
                name,
                kinds.POSITIONAL_OR_KEYWORD if by_keyword else kinds.POSITIONAL_ONLY,
                default=_DEFAULT if has_default else kinds.empty,
            )
            for name, has_default, by_keyword in self.positional
        ]
        if self.var_positional:
            parameters.append(kinds("__args", kinds.VAR_POSITIONAL))
        parameters += [
            kinds(name, kinds.KEYWORD_ONLY, default=_DEFAULT if has_default else kinds.empty)
            for name, has_default in self.keyword_only
        ]
        if self.var_keyword:
            parameters.append(kinds("__kwargs", kinds.VAR_KEYWORD))
        return inspect.Signature(parameters)


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
