from __future__ import annotations

import pickle

import grpc
import pytest

from shoal_common import errors


@pytest.mark.parametrize("error", errors.ERRORS)
def test_every_error_has_a_grpc_status_and_survives_pickling(error: type[errors.ServiceError]) -> None:
    assert error.status in grpc.StatusCode.__members__
    copy = pickle.loads(pickle.dumps(error("what happened")))
    assert type(copy) is error
    assert str(copy) == "what happened"


@pytest.mark.parametrize("error", errors.ERRORS)
def test_status_and_name_give_the_same_class_back(error: type[errors.ServiceError]) -> None:
    assert errors.error_class(error.status, error.__name__) is error


def test_a_status_without_a_name_gives_the_plain_class() -> None:
    assert errors.error_class("RESOURCE_EXHAUSTED") is errors.ResourceExhausted
    assert errors.error_class("RESOURCE_EXHAUSTED", "NewerThanWe") is errors.ResourceExhausted
    assert errors.error_class("UNKNOWN") is errors.InternalError


def test_all_errors_are_in_the_table_and_in_its_documentation() -> None:
    defined = {value for value in vars(errors).values() if isinstance(value, type)} - {errors.ServiceError}
    assert {error for error in defined if issubclass(error, errors.ServiceError)} == set(errors.ERRORS)
    for error in errors.ERRORS:
        assert f"| `{error.__name__}` | {error.status} |" in str(errors.__doc__)
