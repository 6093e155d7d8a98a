"""A program written for Ray, not changed in a letter, where ``compat/`` is installed beside Shoal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.processes import PATIENCE_S

COMPAT = Path(__file__).parents[2] / "compat" / "src"

PROGRAM = """
import ray
import ray.util.queue
from ray.util import ActorPool
from ray.util.queue import Queue
from ray._private.worker import global_worker

@ray.remote
def square(x, queue):
    import ray.cluster_utils  # a worker finds its modules too
    queue.put(x)
    assert isinstance(queue, ray.util.queue.Queue)
    return x * x, global_worker.mode == ray.WORKER_MODE

@ray.remote
class Counter:
    def __init__(self):
        self.total = 0
    def add(self, x):
        if x < 0:
            raise ray.exceptions.RayError("negative")
        self.total += x
        return self.total

ray.init(address="local", num_cpus=2, include_dashboard=False, _redis_password="libraries pass one")
queue = Queue()
assert ray.get([square.remote(x, queue) for x in range(4)]) == [(x * x, True) for x in range(4)]
assert sorted(queue.get() for _ in range(4)) == [0, 1, 2, 3]

counter = Counter.remote()
assert ray.get([counter.add.remote(x) for x in (1, 2)]) == [1, 3]
try:
    ray.get(counter.add.remote(-1))
except ray.exceptions.RayTaskError as error:
    assert isinstance(error, ray.exceptions.RayError), type(error)
assert list(ActorPool([counter]).map(lambda actor, x: actor.add.remote(x), [1])) == [4]

context = ray.get_runtime_context()
assert context.worker.mode == ray.SCRIPT_MODE == global_worker.mode
assert [node["alive"] for node in ray.nodes()] == [True]
ref = square._remote(args=[3], kwargs={"queue": queue}, num_cpus=1)
assert ray.get(ref)[0] == 9
ray.shutdown()
print("as with Ray")
"""


def test_a_program_as_it_is(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(COMPAT), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=PATIENCE_S, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "as with Ray"
