from __future__ import annotations

import pytest

from shoal_common.placement.requested import Bundle, decode, encode


def test_equal_bundles_are_counted_together() -> None:
    gpu = {"GPU": 1.0, "CPU": 2.0}
    asked = encode([({"CPU": 1.0}, {}, 3), (gpu, {"zone": "a"}, 1), (gpu, {}, 1), ({"CPU": 1.0}, {}, 100_000)])
    assert decode(asked) == [Bundle({"CPU": 1.0}, {}, 100_003), Bundle(gpu, {"zone": "a"}), Bundle(gpu)]
    assert decode(encode([({"CPU": 1.0}, {}, 0)])) == []


def test_what_is_no_request() -> None:
    with pytest.raises(ValueError, match="Expected `array`"):
        decode(b"{}")
