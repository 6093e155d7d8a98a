from __future__ import annotations

import pytest

from shoal_common.placement.gpus import node_gpu_ids, show


@pytest.mark.parametrize(
    ("visible", "count", "ids"),
    [
        (None, 2, ("0", "1")),
        (None, 0, ()),
        ("4,6", 2, ("4", "6")),
        ("4, 6,7", 1, ("4",)),
        ("GPU-a1,MIG-b2", 2, ("GPU-a1", "MIG-b2")),
        ("3,-1,2", 1, ("3",)),
        ("", 0, ()),
    ],
)
def test_a_node_hands_out_what_it_is_let_see(visible: str | None, count: int, ids: tuple[str, ...]) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert node_gpu_ids(count, environ) == ids


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles", "5", "5,-1,6", "5,5"])
def test_a_node_cannot_have_more_than_that(visible: str) -> None:
    with pytest.raises(ValueError, match=r"cannot have 2 GPUs where CUDA_VISIBLE_DEVICES lets [01] be seen"):
        node_gpu_ids(2, {"CUDA_VISIBLE_DEVICES": visible})


@pytest.mark.parametrize(
    ("setting", "granted", "seen"), [("0", (), "4,6"), ("1", (), ""), ("1", ("6",), "6"), ("0", ("4", "6"), "4,6")]
)
def test_a_worker_shows_what_it_was_granted(setting: str, granted: tuple[str, ...], seen: str) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "4,6", "SHOAL_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": setting}
    show(granted, environ)
    assert environ["CUDA_VISIBLE_DEVICES"] == seen
    environ |= {"CUDA_VISIBLE_DEVICES": "4,6", "SHOAL_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}
    show(granted, environ)
    assert environ["CUDA_VISIBLE_DEVICES"] == "4,6", "switched off"
