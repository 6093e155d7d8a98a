"""The user's program of the soak: works until it is told to end, and compares all results with the sequential answers.

Runs after the preamble of `support.drivers`. Its arguments: the address, empty for an embedded cluster, and a seed.
Each kind of work is a thread of its own; what goes wrong is counted and reported, and never ends the others.
"""

# ruff: noqa: F821 - what is not defined here is in that preamble

import collections
import random
import traceback

import numpy as np

ADDRESS, SEED = sys.argv[1], sys.argv[2]
PATIENCE_S = 120
STORE_BYTES = 96 << 20
BIG = 1 << 20  # numbers in an array of 8 MiB

settings = {"address": ADDRESS} if ADDRESS else {"num_cpus": 4, "object_store_memory": STORE_BYTES}
ray.init(logging_level="ERROR", log_to_driver=False, **settings)

ended = threading.Event()
done, failed, lock = collections.Counter(), [], threading.Lock()


# Work that may be repeated as often as it takes.
@ray.remote(max_retries=-1, num_cpus=0.5)
def square(n):
    return n * n


@ray.remote(max_retries=-1, num_cpus=0.5)
def add(*numbers):
    return sum(numbers)


@ray.remote(max_retries=-1, num_cpus=0.5)
def nested(numbers):
    return sum(ray.get([square.remote(n) for n in numbers]))


@ray.remote(max_retries=-1, num_cpus=0.5)
def array(n):
    return np.arange(n, n + BIG)


@ray.remote(max_retries=-1, num_cpus=0.5)
def total(values):
    return int(values.sum())


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Squarer:
    def square(self, n):
        return n * n


def tasks(rng):
    numbers = [rng.randrange(1000) for _ in range(40)]
    yield add.remote(*[square.remote(n) for n in numbers]), sum(n * n for n in numbers)


def nests(rng):
    numbers = [rng.randrange(1000) for _ in range(10)]
    yield nested.remote(numbers), sum(n * n for n in numbers)


def actors(rng):
    squarer = Squarer.remote()
    numbers = [rng.randrange(1000) for _ in range(20)]
    for n, ref in zip(numbers, [squarer.square.remote(n) for n in numbers], strict=True):
        yield ref, n * n


def arrays(rng):
    n = rng.randrange(1000)
    yield total.remote(array.remote(n)), sum(range(n, n + BIG))


def spills(rng):
    """More than the store holds, all of this program's own."""
    numbers = [rng.randrange(1000) for _ in range(2 * STORE_BYTES // (8 * BIG))]
    refs = [ray.put(np.arange(n, n + BIG)) for n in numbers]
    for n, ref in rng.sample(list(zip(numbers, refs, strict=True)), 6):
        yield total.remote(ref), sum(range(n, n + BIG))


def groups(rng):
    group = ray.util.placement_group([{"CPU": 0.5}] * 2, strategy=rng.choice(["PACK", "SPREAD"]))
    try:
        inside = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group)
        numbers = [rng.randrange(1000) for _ in range(4)]
        for n, ref in zip(
            numbers, [square.options(scheduling_strategy=inside).remote(n) for n in numbers], strict=True
        ):
            yield ref, n * n
    finally:
        ray.util.remove_placement_group(group)


def keep_doing(kind):
    rng = random.Random(f"{SEED} {kind.__name__}")
    while not ended.is_set():
        try:
            for ref, right in kind(rng):
                count(
                    "right" if (got := ray.get(ref, timeout=PATIENCE_S)) == right else "wrong",
                    kind,
                    f"{got} for {right}",
                )
        except ray.exceptions.GetTimeoutError as error:
            count("hung", kind, f"{error} {ray.explain(ref)}")
        except Exception:
            count("lost", kind, traceback.format_exc(limit=-2))


def count(what, kind, why):
    with lock:
        done[f"{kind.__name__}: {what}"] += 1
        if what != "right" and len(failed) < 20:
            failed.append(f"{time.strftime('%T')} {what} in {kind.__name__}: {why}")


threads = [threading.Thread(target=keep_doing, args=[kind]) for kind in (tasks, nests, actors, arrays, spills, groups)]
for thread in threads:
    thread.start()
here = ray.get_runtime_context().get_node_id()
report(host=next(node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == here))
command()
ended.set()
for thread in threads:
    thread.join()
report(done=done, failed=failed)
command()
ray.shutdown()
