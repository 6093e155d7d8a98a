"""Bundles of placement groups as resources of their node.

A bundle that holds 2 CPU as the third of group ``<g>`` takes them from its node's ``CPU`` and gives the node instead::

    CPU_group_2_<g>: 2   CPU_group_<g>: 2   bundle_group_2_<g>: 1000   bundle_group_<g>: 1000

What runs in that bundle needs the first and the second name, what runs in any bundle of the group the second, and a
bit of ``bundle`` binds even what needs no resource. So ledgers, leases, heartbeats and schedulers carry bundles without
knowing of them. The names are Ray's.
"""

from __future__ import annotations

from collections.abc import Mapping

from shoal_common.placement.resources import GRAINS, ResourceSet

_MARKER = "bundle"
_MARKER_OFFERED, _MARKER_NEEDED = 1000 * GRAINS, GRAINS // 1000


def offered(resources: ResourceSet, group_id: bytes, index: int) -> ResourceSet:
    """What a node has more for this bundle, besides that ``resources`` are taken."""
    return _named({**resources.grains, _MARKER: _MARKER_OFFERED}, group_id, index)


def needed(resources: ResourceSet, group_id: bytes, index: int | None) -> ResourceSet:
    """What a request for ``resources`` needs of a node when it is bound to a bundle; None = to any one of the group."""
    return _named({**resources.grains, _MARKER: _MARKER_NEEDED}, group_id, index)


def cpus(resources: ResourceSet) -> ResourceSet:
    """The CPUs among them, plain ones and those of bundles."""
    grains = resources.grains.items()
    return ResourceSet({name: amount for name, amount in grains if name == "CPU" or name.startswith("CPU_group_")})


def bundle_name(resource: str, group_id: bytes, index: int | None) -> str:
    """What ``resource`` is called in this bundle; None = in any one of the group."""
    return f"{resource}_group_{group_id.hex()}" if index is None else f"{resource}_group_{index}_{group_id.hex()}"


def plain(name: str) -> str:
    """The resource of which this is a bundle's."""
    return name.rpartition("_group_")[0] or name


def in_any_bundle(name: str) -> str:
    """The same resource in any bundle of that bundle's group; "" = ``name`` is not that of a bundle."""
    resource, _, bundle = name.rpartition("_group_")
    return f"{resource}_group_{bundle.rpartition('_')[2]}" if resource else ""


def _named(grains: Mapping[str, int], group_id: bytes, index: int | None) -> ResourceSet:
    named = {bundle_name(name, group_id, None): amount for name, amount in grains.items()}
    if index is not None:
        named |= {bundle_name(name, group_id, index): amount for name, amount in grains.items()}
    return ResourceSet(named)
