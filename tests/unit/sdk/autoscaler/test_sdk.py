from __future__ import annotations

from typing import Any

import pytest

from shoal.autoscaler.sdk import request_resources


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        ({"num_cpus": 1.5}, TypeError, "num_cpus should be of type int"),
        ({"num_cpus": -1}, ValueError, "must not be negative"),
        ({"bundles": {"CPU": 1}}, TypeError, "bundles should be of type List"),
        ({"bundles": [1]}, TypeError, "each bundle should be a Dict"),
        ({"bundles": [{"CPU": "1"}]}, TypeError, "'CPU': '1'"),
        ({"bundles": [{"CPU": float("nan")}]}, ValueError, "the amount of CPU"),
        ({"bundle_label_selectors": [{}]}, ValueError, "one selector for each"),
        ({"bundles": [{"CPU": 1}], "bundle_label_selectors": [{"zone": "in("}]}, ValueError, "label selector"),
        ({"num_cpus": 1}, RuntimeError, r"call shoal.init\(\) first"),
    ],
)
def test_bad_requests(request_: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        request_resources(**request_)
