"""What this worker may use now, by the lease or the actor that its raylet has given it, shown to the user's code."""

from __future__ import annotations

import os

from shoal import _context, _current
from shoal._executor.lending import Lending
from shoal_common.channel import frames
from shoal_common.placement import gpus
from shoal_common.placement.resources import GRAINS


def show(granted: frames.LeaseAssigned | frames.CreateActor, lending: Lending) -> None:
    process, devices = _context.process, granted.devices
    process.resources = {name: grains / GRAINS for name, grains in granted.resources}
    process.devices = devices
    before = process.strategy, process.priority
    process.strategy = granted.strategy
    process.priority = granted.priority if isinstance(granted, frames.LeaseAssigned) else 0
    if before != (process.strategy, process.priority):
        _current.prepare_anew()  # what the functions here submit may go to another placement group
    cpus = process.resources.get("CPU", 0.0)
    lending.holds_cpu = cpus > 0
    if "SHOAL_USER_OMP" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, int(cpus)))
    gpus.show(devices.get("GPU", ()), os.environ)
