"""What ``init`` is given of a job's name."""

from __future__ import annotations

from typing import Any

import pytest

from shoal._session.named_job import DEFAULT_KEEP_S, JobName, named_job_given


def given(job: Any = None, attach: Any = False, keep_s: Any = DEFAULT_KEEP_S, *, embedded: bool = False) -> Any:
    return named_job_given(job, attach, keep_s, embedded=embedded)


def test_a_name() -> None:
    assert given() is None
    assert given("nightly") == JobName("nightly", False, 600.0)
    assert given("nightly", True, 5) == JobName("nightly", True, 5.0)
    assert given("nightly", embedded=True) == JobName("nightly", False, 600.0), "it lasts as long as the cluster"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"attach": True}, ValueError, "for a job that has a name"),
        ({"keep_s": 1}, ValueError, "for a job that has a name"),
        ({"job": ""}, ValueError, "1 to 512 bytes"),
        ({"job": "\xe4" * 257}, ValueError, "1 to 512 bytes"),
        ({"job": "a" * 10_000}, ValueError, "1 to 512 bytes"),
        ({"job": "\ud800"}, UnicodeEncodeError, "the name of a job must be valid Unicode"),
        ({"job": 1}, TypeError, "job must be None or a str"),
        ({"job": "a", "attach": "yes"}, TypeError, "attach must be True or False"),
        ({"job": "a", "keep_s": -1}, ValueError, "keep_s must be a number of seconds from 0"),
        ({"job": "a", "keep_s": 1e300}, ValueError, "at most 3,153,600,000, not 1e"),
        ({"job": "a", "keep_s": float("inf")}, ValueError, "keep_s must be a number of seconds from 0"),
        ({"job": "a", "keep_s": "1"}, TypeError, "keep_s must be a number"),
        ({"job": "a", "attach": True, "embedded": True}, ValueError, "needs a cluster that outlives its drivers"),
    ],
)
def test_what_makes_no_sense(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        given(**arguments)
