"""Dask's graphs as tasks, as ``ray.util.dask``. Needs the package ``dask``, 2024.12 or later.

    from shoal.util.dask import enable_dask_on_ray

    enable_dask_on_ray()
    frame.groupby("x").sum().compute()

Each step of a graph that dask has optimized is one task, named ``dask:<key>``. What goes from step to step stays in the
object store, and is freed when the last step that needs it has run.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import shoal
from shoal._core.object_ref import ObjectRef

if TYPE_CHECKING:
    from dask._task_spec import GraphNode

__all__ = ["disable_dask_on_ray", "enable_dask_on_ray", "ray_dask_get", "ray_dask_get_sync"]


def enable_dask_on_ray(shuffle: str | None = "tasks") -> Any:
    """From now on dask computes with Shoal; as a context manager, within it. ``shuffle``: how dask's frames shuffle;
    "disk" needs a directory that all nodes have."""
    import dask

    return dask.config.set({"scheduler": ray_dask_get, "dataframe.shuffle.method": shuffle})


def disable_dask_on_ray() -> Any:
    """Dask chooses its scheduler itself again."""
    import dask

    return dask.config.set({"scheduler": None, "dataframe.shuffle.method": None})


def ray_dask_get(
    dsk: Any,
    keys: Any,
    *,
    ray_persist: bool = False,
    ray_remote_args: Mapping[str, Any] | None = None,
    **unknown: Any,
) -> Any:
    """A scheduler of dask's: the values of ``keys``, which may be lists of lists of keys, of a graph or expression.

    ``ray_persist``: refs instead of values; ``x.persist(ray_persist=True)`` keeps results in the cluster.
    ``ray_remote_args``: options of all tasks.

    Raises: what the steps raise, TypeError for other arguments.
    """
    from dask._task_spec import convert_legacy_graph

    if unknown:
        raise TypeError(
            f"{', '.join(sorted(unknown))}: Shoal's scheduler for dask takes ray_persist and ray_remote_args. How many "
            "tasks run at once is up to the resources they ask for."
        )
    graph = dsk if isinstance(dsk, Mapping) else dsk.__dask_graph__()
    results = _submitted(convert_legacy_graph(graph), _run.options(**(ray_remote_args or {})))
    wanted = {key: results[key] for key in _flat(keys)}
    # From here on each intermediate result lives only as long as a task needs it.
    del results
    if ray_persist:
        return _like(keys, wanted)
    refs = [value for value in wanted.values() if isinstance(value, ObjectRef)]
    values = dict(zip(refs, shoal.get(refs), strict=True))
    return _like(keys, {key: values[value] if isinstance(value, ObjectRef) else value for key, value in wanted.items()})


def ray_dask_get_sync(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """As ``ray_dask_get``, which uses no threads either."""
    return ray_dask_get(dsk, keys, **kwargs)


def _submitted(graph: Mapping[Any, GraphNode], run: Any) -> dict[Any, Any]:
    """Of each step its ref, or the value of one that is data."""
    from dask._task_spec import Alias, DataNode

    results: dict[Any, Any] = {}
    for key in _order(graph):
        node = graph[key]
        if isinstance(node, DataNode):
            results[key] = node.value
        elif isinstance(node, Alias):
            results[key] = results[node.target]
        else:
            needed = list(node.dependencies)
            results[key] = run.options(name=f"dask:{key}").remote(
                node, needed, *(results[dependency] for dependency in needed)
            )
    return results


@shoal.remote
def _run(node: Any, needed: list[Any], *values: Any) -> Any:
    return node(dict(zip(needed, values, strict=True)))


def _order(graph: Mapping[Any, GraphNode]) -> Iterator[Any]:
    """Keys, each after those it depends on. Without recursion: a chain may have thousands."""
    done: set[Any] = set()
    for first in graph:
        stack = [first]
        while stack:
            key = stack[-1]
            waits_for = [each for each in graph[key].dependencies if each not in done] if key not in done else []
            if waits_for:
                stack += waits_for
                continue
            stack.pop()
            if key not in done:
                done.add(key)
                yield key


def _flat(keys: Any) -> Iterator[Hashable]:
    if isinstance(keys, list):
        for each in keys:
            yield from _flat(each)
    else:
        yield keys


def _like(keys: Any, values: Mapping[Any, Any]) -> Any:
    """``values`` in the shape of ``keys``; as dask's own schedulers, a tuple for each list."""
    return tuple(_like(each, values) for each in keys) if isinstance(keys, list) else values[keys]
