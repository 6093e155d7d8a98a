"""A sweep on this machine: `python program.py --multirun hydra/launcher=ray x=1,2 y=10,20`."""

from __future__ import annotations

import sys

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig

ConfigStore.instance().store(name="config", node={"x": 0, "y": 0})


@hydra.main(version_base=None, config_name="config")
def app(config):
    import ray

    assert ray.get_runtime_context().worker.mode == ray.WORKER_MODE
    return config.x + config.y, HydraConfig.get().job.num


if __name__ == "__main__":
    from pathlib import Path

    sys.argv[1:] = ["--multirun", "hydra/launcher=ray", "hydra.sweep.dir=sweep", "x=1,2", "y=10,20"]
    sys.argv += ["+hydra.launcher.ray.init.num_cpus=2"]
    app()
    jobs = sorted(Path("sweep").glob("[0-9]*"), key=lambda path: int(path.name))
    assert [job.name for job in jobs] == ["0", "1", "2", "3"], jobs
    seen = [(job / ".hydra" / "overrides.yaml").read_text().split() for job in jobs]
    assert seen == [["-", f"x={x}", "-", f"y={y}"] for x in (1, 2) for y in (10, 20)], seen
    print("4 jobs, each in a worker, each with its own overrides and directory")
