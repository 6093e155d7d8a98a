"""Marks on what a library offers."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest

from shoal.util.annotations import AnnotationType, Deprecated, DeveloperAPI, PublicAPI, RayDeprecationWarning


def fresh() -> Any:
    def function(x: int) -> int:
        """Doubles.

        Twice.
        """
        return 2 * x

    return function


@pytest.mark.parametrize(
    ("mark", "kind", "says"),
    [
        (PublicAPI, AnnotationType.PUBLIC_API, ""),
        (PublicAPI(stability="beta", api_group="Maths"), AnnotationType.PUBLIC_API, "**PublicAPI (beta):**"),
        (DeveloperAPI, AnnotationType.DEVELOPER_API, "**DeveloperAPI:**"),
        (DeveloperAPI(), AnnotationType.DEVELOPER_API, "**DeveloperAPI:**"),
        (Deprecated, AnnotationType.DEPRECATED, "**DEPRECATED**"),
        (Deprecated(message="Use halve()."), AnnotationType.DEPRECATED, "Use halve()."),
    ],
)
def test_what_is_marked_works_as_before_and_shows_it(mark: Any, kind: AnnotationType, says: str) -> None:
    marked = mark(fresh())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert marked(4) == 8
    assert marked._annotated_type is kind
    assert marked._annotated == "function"
    doc = inspect.getdoc(marked)
    assert doc is not None
    assert doc.startswith("Doubles.\n\nTwice.")
    assert says in doc


def test_a_group() -> None:
    assert PublicAPI(api_group="Maths")(fresh())._annotated_api_group == "Maths"
    assert PublicAPI(fresh())._annotated_api_group == "Others"


def test_an_unknown_stability_is_refused() -> None:
    with pytest.raises(AssertionError, match="solid"):
        PublicAPI(stability="solid")


def test_deprecated_warns_where_it_is_called_if_told_to() -> None:
    marked = Deprecated(message="Use halve().", warning=True)(fresh())
    with pytest.warns(RayDeprecationWarning, match="Use halve") as seen:
        assert marked(4) == 8
    assert seen[0].filename == __file__
    assert marked.__name__ == "function"


def test_a_deprecated_class_stays_a_class() -> None:
    @Deprecated(warning=True)
    class Old:
        def __init__(self, x: int) -> None:
            self.x = x

    assert isinstance(Old, type)
    with pytest.warns(RayDeprecationWarning):
        assert Old(3).x == 3
