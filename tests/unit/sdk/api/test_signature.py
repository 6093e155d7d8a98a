"""Wrong arguments fail at the call as they would in ``inspect.Signature.bind``, with the same text."""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal._api.signature import ANY, Signature, signature_of

KINDS = inspect.Parameter


def plain(a, b, c=3): ...
def positional_only(a, b=2, /, c=3): ...
def keyword_only(a, *, b, c=3): ...
def star(a, *rest): ...
def double_star(a, **options): ...
def everything(a, b=2, *rest, c, d=4, **options): ...
def nothing(): ...
def misleading(args, *kwargs, **self): ...


FUNCTIONS = [plain, positional_only, keyword_only, star, double_star, everything, nothing, misleading]


def outcome(check: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """ "" when accepted, else the text. Python 3.13 names the kind of a missing argument, 3.11 does not."""
    try:
        check(*args, **kwargs)
    except TypeError as error:
        return re.sub(" (positional-only|keyword-only) argument", " argument", str(error))
    return ""


@settings(max_examples=500)
@given(
    function=st.sampled_from(FUNCTIONS),
    args=st.lists(st.just(0), max_size=4).map(tuple),
    kwargs=st.dictionaries(st.sampled_from(["a", "b", "c", "d", "args", "rest", "options"]), st.just(0), max_size=4),
)
def test_as_signature_bind(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    signature = signature_of(function)
    ours = outcome(lambda *a, **k: signature.check(a, k), args, kwargs)
    assert ours == outcome(inspect.signature(function).bind, args, kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((1,), {}, "missing a required argument: 'b'"),
        ((1, 2, 3, 4), {}, "too many positional arguments"),
        ((1, 2), {"a": 1}, "multiple values for argument 'a'"),
        ((1, 2), {"z": 1}, "got an unexpected keyword argument 'z'"),
    ],
)
def test_texts(args: tuple[Any, ...], kwargs: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        signature_of(plain).check(args, kwargs)


def test_keyword_for_a_positional_parameter_says_so() -> None:
    with pytest.raises(TypeError, match=r"positional[- ]only"):
        signature_of(positional_only).check((), {"a": 1})


def test_keywords_are_not_consumed() -> None:
    kwargs = {"b": 2, "other": 3}
    signature_of(double_star).check((1,), kwargs)
    assert kwargs == {"b": 2, "other": 3}


def test_self_is_left_out() -> None:
    class Example:
        def method(self, a): ...

        @staticmethod
        def static(a): ...

        @classmethod
        def of_class(cls, a): ...

    for signature in (
        signature_of(Example.method, skip_first=True),
        signature_of(Example.static),
        signature_of(Example.of_class),
    ):
        signature.check((1,), {})
        with pytest.raises(TypeError, match="missing a required argument: 'a'"):
            signature.check((), {})


def test_parameters_named_self_and_args_are_ordinary() -> None:
    def function(self, args=1, kwargs=2): ...

    signature_of(function).check((), {"self": 1, "args": 2, "kwargs": 3})


def test_callable_without_a_signature_takes_anything() -> None:
    assert signature_of(type) is ANY or signature_of(print) is not None
    ANY.check((1, 2, 3), {"any": 1})


def test_defaults_and_annotations_stay_at_home() -> None:
    """A handle must not carry values of the defining process."""

    def function(a: threading.Lock = object(), *, b: int = 3): ...  # type: ignore[name-defined]  # noqa: B008, F821

    signature = signature_of(function)
    travelled = msgspec.msgpack.decode(msgspec.msgpack.encode(signature), type=Signature)
    assert travelled == signature
    travelled.check((), {})
