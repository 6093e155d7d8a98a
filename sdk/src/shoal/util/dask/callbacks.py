"""Who is told what becomes of a graph: dask's own callbacks, in the process that computes, and Ray's, of which two run
where the step runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

from dask.callbacks import Callback

from shoal.experimental import tqdm_ray

Function = Callable[..., Any]


class RayCallback(NamedTuple):
    """What one ``RayDaskCallback`` is told; None = nothing."""

    presubmit: Function | None
    postsubmit: Function | None
    pretask: Function | None
    posttask: Function | None
    postsubmit_all: Function | None
    finish: Function | None


class RayDaskCallback(Callback):  # type: ignore[misc]
    """Dask's callback and six functions more, given by name (``ray_presubmit=…``) or overridden in a subclass
    (``_ray_presubmit``). A context manager; ``register`` has it called until ``unregister``.

    - ``ray_presubmit(task, key, deps)``: before a step becomes a task. What it returns, unless it is None, is the
      step's result instead. ``deps``: refs or values, by key.
    - ``ray_postsubmit(task, key, deps, object_ref)``: after that.
    - ``ray_pretask(key, object_refs)``: in the worker, before the step. ``object_refs``: of what it needs.
    - ``ray_posttask(key, result, pre_state)``: in the worker, after it; ``pre_state`` is what ``ray_pretask`` returned.
    - ``ray_postsubmit_all(object_refs, dsk)``: when all are submitted. ``object_refs``: of what is computed.
    - ``ray_finish(result)``: at the end.
    """

    ray_active: ClassVar[set[RayCallback]] = set()

    def __init__(self, **kwargs: Function) -> None:
        for name in RayCallback._fields:
            if (function := kwargs.pop(f"ray_{name}", None)) is not None:
                setattr(self, f"_ray_{name}", function)
        super().__init__(**kwargs)

    @property
    def _ray_callback(self) -> RayCallback:
        return RayCallback(*(getattr(self, f"_ray_{name}", None) for name in RayCallback._fields))

    def __enter__(self) -> RayDaskCallback:
        RayDaskCallback.ray_active.add(self._ray_callback)
        super().__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        super().__exit__(*args)
        RayDaskCallback.ray_active.discard(self._ray_callback)

    def register(self) -> None:
        RayDaskCallback.ray_active.add(self._ray_callback)
        super().register()

    def unregister(self) -> None:
        RayDaskCallback.ray_active.remove(self._ray_callback)
        super().unregister()


class Told:
    """All functions of one kind, of several callbacks."""

    def __init__(self, callbacks: Iterable[RayCallback]) -> None:
        def those(name: str) -> list[Function]:
            return [function for each in callbacks if (function := getattr(each, name)) is not None]

        callbacks = list(callbacks)
        self.presubmit = those("presubmit")
        self.postsubmit = those("postsubmit")
        self.postsubmit_all = those("postsubmit_all")
        self.finish = those("finish")
        #: Before and after a step, in the worker; of one callback they belong together.
        self.around = [(each.pretask, each.posttask) for each in callbacks if each.pretask or each.posttask]


@contextmanager
def told(given: Iterable[RayDaskCallback | RayCallback] | None) -> Iterator[Told]:
    """Those of one computation: the ones given, or else the active ones, which a computation inside of this one does
    not tell too. Raises: TypeError for what is no callback."""
    if given is not None:
        yield Told(_normal(each) for each in given)
        return
    active, RayDaskCallback.ray_active = RayDaskCallback.ray_active, set()
    try:
        yield Told(active)
    finally:
        RayDaskCallback.ray_active = active


def _normal(callback: Any) -> RayCallback:
    if isinstance(callback, RayDaskCallback):
        return callback._ray_callback
    if isinstance(callback, RayCallback):
        return callback
    raise TypeError(f"ray_callbacks are RayDaskCallbacks, not {type(callback).__name__}")


class ProgressBarCallback(RayDaskCallback):
    """A bar of the steps that have been computed, while it is active."""

    def _start_state(self, dsk: Any, state: dict[str, Any]) -> None:
        total = len(state["waiting"]) + len(state["ready"])
        self._bar = tqdm_ray.tqdm(desc="dask", total=total, unit="step", flush_interval_s=0.1)

    def _posttask(self, key: Any, result: Any, dsk: Any, state: dict[str, Any], worker_id: Any) -> None:
        self._bar.update()

    def _finish(self, dsk: Any, state: dict[str, Any], failed: bool) -> None:
        self._bar.close()
