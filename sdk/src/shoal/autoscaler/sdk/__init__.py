"""Ahead of the work that needs it: room for so much, please; as ``ray.autoscaler.sdk``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shoal import _current
from shoal._net.gcs.errors import InvalidArgument
from shoal._not_implemented import missing
from shoal._values.numbers import plain, plain_amounts
from shoal_common.placement import requested
from shoal_common.placement.labels import parse_selector

__all__ = ["request_resources"]

_LAUNCHER = "Shoal has no cluster launcher: `shoal start` and `shoal stop` on each machine"
_NOT_THERE = dict.fromkeys(
    """
    bootstrap_config configure_logging create_or_update_cluster fillout_defaults get_docker_host_mount_location
    get_head_node_ip get_worker_node_ips register_callback_handler rsync run_on_cluster teardown_cluster
    """.split(),
    _LAUNCHER,
)


if not TYPE_CHECKING:  # a type checker would take every name for one of the module's

    def __getattr__(name: str) -> Any:
        raise missing(__name__, name, _NOT_THERE)


def request_resources(
    num_cpus: int | None = None,
    bundles: list[dict[str, float]] | None = None,
    bundle_label_selectors: list[dict[str, str]] | None = None,
) -> None:
    """Ask for a cluster that has room for all of this at the same time, busy or not, until the next call asks for
    something else: ``request_resources(num_cpus=0)`` for nothing.

    ``num_cpus``: so many CPUs, wherever. ``bundles``: resources in units, each on one node. ``bundle_label_selectors``:
    one for each of ``bundles``.

    The request is kept with the cluster's metadata, where the autoscaler reads it. Where none runs it changes nothing.

    Raises: TypeError, ValueError (negative amounts, no selector for each bundle, bad selectors, above 512 KiB),
    RuntimeError (no session), RpcError.
    """
    num_cpus = plain(num_cpus)
    if num_cpus is not None and not isinstance(num_cpus, int):
        raise TypeError("num_cpus should be of type int.")
    if bundles is not None and not isinstance(bundles, list):
        raise TypeError("bundles should be of type List.")
    if bundle_label_selectors and len(bundle_label_selectors) != len(bundles or ()):
        raise ValueError("bundle_label_selectors must have one selector for each of bundles.")
    wanted: list[tuple[Mapping[str, float], Mapping[str, str], int]] = []
    if num_cpus is not None:
        if num_cpus < 0:
            raise ValueError(f"num_cpus must not be negative, but is {num_cpus}.")
        wanted.append(({"CPU": 1.0}, {}, num_cpus))
    for bundle, selector in zip(bundles or (), bundle_label_selectors or [{}] * len(bundles or ()), strict=True):
        parse_selector(selector)
        wanted.append((_amounts(bundle), selector, 1))
    core = _current.current_or_none()
    if core is None:
        raise RuntimeError("Shoal is not initialized yet: call shoal.init() first.")
    try:
        core.gcs.kv.put(requested.NAMESPACE, requested.KEY, requested.encode(wanted), None, 0.0)
    except InvalidArgument as error:
        raise ValueError(error.message) from None


def _amounts(bundle: Any) -> dict[str, float]:
    if not isinstance(bundle, dict):
        raise TypeError("each bundle should be a Dict.")
    amounts: dict[str, float] = plain_amounts(bundle)
    for name, amount in amounts.items():
        if not isinstance(name, str) or isinstance(amount, bool) or not isinstance(amount, int | float):
            raise TypeError(f"a bundle maps names to numbers, but has {name!r}: {amount!r}")
        if not 0 <= amount < float("inf"):
            raise ValueError(f"the amount of {name} must be a number that is not negative, but is {amount}")
    return {name: float(amount) for name, amount in amounts.items()}
