from __future__ import annotations

import importlib.util

import pytest

from shoal.util import collective


def test_what_is_for_gpus_is_refused_with_a_reason() -> None:
    with pytest.raises(
        AttributeError, match=r"not implemented by Shoal\. Instead: the same function without `_multigpu`"
    ):
        collective.allreduce_multigpu  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="Shoal has no NCCL"):
        from shoal.util.collective import send_multigpu  # type: ignore[attr-defined]  # noqa: F401


def test_backends_that_there_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="there is no backend 'nccl', only 'gloo' and 'shoal'"):
        collective.init_collective_group(1, 0, backend="nccl")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="'torch_gloo' needs torch: install it, or take 'gloo'"):
        collective.init_collective_group(1, 0, backend="torch_gloo")
