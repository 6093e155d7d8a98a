"""The scheduler itself: graphs of steps become tasks, and refs go from one to the next."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dask
from dask._task_spec import Alias, DataNode, convert_legacy_graph
from dask.callbacks import local_callbacks, unpack_callbacks
from dask.order import order

import shoal
from shoal._core.object_ref import ObjectRef
from shoal.util.dask.callbacks import Told, told

if TYPE_CHECKING:
    from dask._task_spec import GraphNode

    from shoal.util.dask.callbacks import Function, RayCallback, RayDaskCallback

_RESOURCES = "Tasks get options by ray_remote_args={...}, with resources among them, not by resources={...}."


def enable_dask_on_ray(shuffle: str | None = "tasks") -> Any:
    """From now on dask computes with Shoal; as a context manager, within it. ``shuffle``: how dask's frames shuffle;
    "disk" needs a directory that all nodes have."""
    return dask.config.set({"scheduler": ray_dask_get, "dataframe.shuffle.method": shuffle})


def disable_dask_on_ray() -> Any:
    """Dask chooses its scheduler itself again."""
    return dask.config.set({"scheduler": None, "dataframe.shuffle.method": None})


def ray_dask_get(
    dsk: Any,
    keys: Any,
    *,
    ray_persist: bool = False,
    ray_remote_args: Mapping[str, Any] | None = None,
    ray_callbacks: Iterable[RayDaskCallback | RayCallback] | None = None,
    **unknown: Any,
) -> Any:
    """A scheduler of dask's: the values of ``keys``, which may be lists of lists of keys, of a graph or expression.

    ``ray_persist``: refs instead of values; ``x.persist(ray_persist=True)`` keeps results in the cluster.
    ``ray_remote_args``: options of all tasks; those that ``dask.annotate(ray_remote_args=…)`` gives some of them go
    before. ``ray_callbacks``: who is told, instead of those that are active.

    Raises: what the steps raise, TypeError for other arguments, ValueError for ``resources``.
    """
    if "resources" in unknown or "resources" in dask.get_annotations():
        raise ValueError(_RESOURCES)
    if unknown:
        raise TypeError(
            f"{', '.join(sorted(unknown))}: Shoal's scheduler for dask takes ray_persist, ray_remote_args and "
            "ray_callbacks. How many tasks run at once is up to the resources they ask for."
        )
    options = _Options(dsk, ray_remote_args or {})
    graph = convert_legacy_graph(dsk if isinstance(dsk, Mapping) else dsk.__dask_graph__())
    with told(ray_callbacks) as those, local_callbacks() as dasks:
        progress = _Progress(dasks, graph)
        try:
            results = _submitted(graph, options, those, progress)
            wanted = {key: results[key] for key in _flat(keys)}
            # From here on each intermediate result lives only as long as a task needs it.
            del results
            for function in those.postsubmit_all:
                function([value for value in wanted.values() if isinstance(value, ObjectRef)], graph)
            progress.follow()
            result = _like(keys, wanted if ray_persist else _values(wanted))
        except BaseException:
            progress.end(failed=True)
            raise
        progress.end(failed=False)
        for function in those.finish:
            function(result)
        return result


def ray_dask_get_sync(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """As ``ray_dask_get``, which uses no threads either."""
    return ray_dask_get(dsk, keys, **kwargs)


def ray_dask_persist(*args: Any, **kwargs: Any) -> Any:
    """``dask.persist``, whose results stay in the cluster."""
    return dask.persist(*args, ray_persist=True, **kwargs)


class _Options:
    """Of the tasks of one computation."""

    def __init__(self, dsk: Any, given: Mapping[str, Any]) -> None:
        here = dask.get_annotations().get("ray_remote_args", {})
        self._all = _run.options(**{**given, **here})
        annotations = _annotations(dsk)
        if "resources" in annotations:
            raise ValueError(_RESOURCES)
        #: Of the steps that have some of their own.
        self._by_key = {
            key: _run.options(**{**given, **here, **own}) for key, own in annotations.get("ray_remote_args", {}).items()
        }

    def of(self, key: Any) -> Any:
        return self._by_key.get(key, self._all)


def _annotations(dsk: Any) -> dict[str, dict[Any, Any]]:
    """By kind and key, of an expression or of a graph in layers."""
    if hasattr(dsk, "__dask_annotations__"):
        found: dict[str, dict[Any, Any]] = dsk.__dask_annotations__()
        return found
    found = {}
    for layer in getattr(dsk, "layers", {}).values():
        for kind, value in (layer.annotations or {}).items():
            found.setdefault(kind, {}).update({key: value(key) if callable(value) else value for key in layer})
    return found


class _Progress:
    """What dask's own callbacks are told. Where there are none, nothing is followed."""

    def __init__(self, callbacks: Iterable[Any], graph: Mapping[Any, GraphNode]) -> None:
        self._graph = graph
        self._start, self._start_state, self._pre, self._post, self._finish = unpack_callbacks(callbacks)
        self._follows = bool(self._pre or self._post or self._start_state or self._finish)
        self._pending: dict[ObjectRef[Any], Any] = {}
        steps = [key for key, node in graph.items() if not isinstance(node, DataNode | Alias)]
        waiting = {key: set(graph[key].dependencies) for key in steps}
        #: As dask's own schedulers have it.
        self.state: dict[str, Any] = {
            "waiting": {key: needs for key, needs in waiting.items() if needs},
            "ready": [key for key, needs in waiting.items() if not needs],
            "running": set(),
            "finished": set(),
            "cache": {key: node.value for key, node in graph.items() if isinstance(node, DataNode)},
        }
        for function in self._start:
            function(graph)
        for function in self._start_state:
            function(graph, self.state)

    def submits(self, key: Any) -> None:
        if self._follows:
            for function in self._pre:
                function(key, self._graph, self.state)
            self.state["waiting"].pop(key, None)
            self.state["running"].add(key)

    def submitted(self, key: Any, result: Any) -> None:
        if not self._follows:
            return
        if isinstance(result, ObjectRef):
            self._pending[result] = key
        else:
            self._finished(key, result)

    def follow(self) -> None:
        """Until all steps have been computed. Raises: what one of them raises."""
        while self._pending:
            ready, _ = shoal.wait(list(self._pending), num_returns=1, fetch_local=False)
            more, _ = shoal.wait(list(self._pending), num_returns=len(self._pending), timeout=0, fetch_local=False)
            for ref in dict.fromkeys([*ready, *more]):
                key = self._pending.pop(ref)
                self._finished(key, shoal.get(ref) if self._post else None)

    def _finished(self, key: Any, result: Any) -> None:
        self.state["running"].discard(key)
        self.state["finished"].add(key)
        for function in self._post:
            function(key, result, self._graph, self.state, None)

    def end(self, failed: bool) -> None:
        for function in self._finish:
            function(self._graph, self.state, failed)


def _submitted(graph: Mapping[Any, GraphNode], options: _Options, those: Told, progress: _Progress) -> dict[Any, Any]:
    """Of each step its ref, or the value of one that is data."""
    results: dict[Any, Any] = {}
    for key in _order(graph):
        node = graph[key]
        if isinstance(node, DataNode):
            results[key] = node.value
        elif isinstance(node, Alias):
            results[key] = results[node.target]
        else:
            needs = {each: results[each] for each in node.dependencies}
            progress.submits(key)
            results[key] = _submit(key, node, needs, options, those)
            progress.submitted(key, results[key])
    return results


def _submit(key: Any, node: GraphNode, needs: dict[Any, Any], options: _Options, those: Told) -> Any:
    for function in those.presubmit:
        if (instead := function(node, key, needs)) is not None:
            return instead
    refs = [value for value in needs.values() if isinstance(value, ObjectRef)] if those.around else []
    run = options.of(key).options(name=f"dask:{key}")
    ref = run.remote(node, list(needs), (key, refs, those.around), *needs.values())
    for function in those.postsubmit:
        function(node, key, needs, ref)
    return ref


@shoal.remote
def _run(
    node: Any,
    needed: list[Any],
    about: tuple[Any, list[ObjectRef[Any]], list[tuple[Function | None, Function | None]]],
    *values: Any,
) -> Any:
    key, refs, around = about
    states = [before(key, refs) if before is not None else None for before, _ in around]
    result = node(dict(zip(needed, values, strict=True)))
    for (_, after), state in zip(around, states, strict=True):
        if after is not None:
            after(key, result, state)
    return result


def _values(wanted: dict[Any, Any]) -> dict[Any, Any]:
    refs = [value for value in wanted.values() if isinstance(value, ObjectRef)]
    values = dict(zip(refs, shoal.get(refs), strict=True))
    return {key: values[value] if isinstance(value, ObjectRef) else value for key, value in wanted.items()}


def _order(graph: Mapping[Any, GraphNode]) -> list[Any]:
    """Keys in dask's order: each after those it depends on, and soon after, so that little is held at the same time.

    Raises: ValueError when one of those is not there.
    """
    for key, node in graph.items():
        if missing := [each for each in node.dependencies if each not in graph]:
            raise ValueError(f"Missing dependency {missing[0]} for {key}")
    places = order(graph)
    return sorted(graph, key=places.__getitem__)


def _flat(keys: Any) -> Iterator[Hashable]:
    if isinstance(keys, list):
        for each in keys:
            yield from _flat(each)
    else:
        yield keys


def _like(keys: Any, values: Mapping[Any, Any]) -> Any:
    """``values`` in the shape of ``keys``; as dask's own schedulers, a tuple for each list."""
    return tuple(_like(each, values) for each in keys) if isinstance(keys, list) else values[keys]
